//! Where a block listens: `bind` lines and the node's interfaces become addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::sources::{Interface, Sources};
use crate::corefile::{Diagnostic, Token, nearest};
use crate::plugins::setting::bind::Bind;

/// One address of a block, before its port is known.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The address; its port is not used.
    pub(super) address: SocketAddr,
    /// The word that named it; `None`: no `bind`, all addresses.
    pub(super) word: Option<Token>,
}

impl Place {
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        let mut address = self.address;
        address.set_port(port);
        address
    }
}

/// The addresses of a block, each once, in the order written.
pub(super) fn places(bind: &[Bind], sources: &Sources, found: &mut Vec<Diagnostic>) -> Vec<Place> {
    if bind.is_empty() {
        return vec![Place { address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), word: None }];
    }
    let mut places: Vec<Place> = Vec::new();
    for line in bind {
        let except: Vec<SocketAddr> = line.except.iter().flat_map(|word| addresses(word, sources, found)).collect();
        for word in &line.addresses {
            for address in addresses(word, sources, found) {
                if !except.contains(&address) && !places.iter().any(|place| place.address == address) {
                    places.push(Place { address, word: Some(word.clone()) });
                }
            }
        }
    }
    places
}

/// What a word of `bind` stands for: an IP address (with `%interface` if link-local) or the addresses of an interface.
fn addresses(word: &Token, sources: &Sources, found: &mut Vec<Diagnostic>) -> Vec<SocketAddr> {
    let text = &*word.text;
    if let Some(interface) = sources.interfaces.iter().find(|interface| interface.name == text) {
        return interface.addresses.iter().map(|address| interface.socket(*address, 0)).collect();
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        // A link-local address whose interface was not named has the scope of the interface that has it.
        let owner = sources.interfaces.iter().find(|interface| interface.addresses.contains(&address));
        return vec![owner.map_or(SocketAddr::new(address, 0), |interface| interface.socket(address, 0))];
    }
    let zoned = text.split_once('%').and_then(|(address, zone)| {
        let number = zone.parse().ok();
        let named = |interface: &&Interface| interface.name == zone || Some(interface.index) == number;
        Some(sources.interfaces.iter().find(named)?.socket(address.parse().ok()?, 0))
    });
    if let Some(address) = zoned {
        return vec![address];
    }
    let mut finding = Diagnostic::error(word.span, format!("`{text}` is neither an IP address nor an interface"));
    let names = || sources.interfaces.iter().map(|interface| interface.name.as_str());
    finding = match nearest(text, names()) {
        _ if text.starts_with("__") => finding.help("the template was not filled in here: which address is meant?"),
        Some(near) => finding.help(format!("did you mean the interface `{near}`?")),
        None if sources.interfaces.is_empty() => finding.help("write an IP address"),
        None => finding.help(format!("this node has the interfaces {}", names().collect::<Vec<_>>().join(", "))),
    };
    found.push(finding);
    Vec::new()
}
