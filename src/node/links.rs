//! The interface and the addresses of the cache.
//!
//! Ours are: an interface of the configured name, if it is a dummy link, with everything on it; and on `lo`, where the
//! addresses go if the kernel has no dummy links, the addresses that bear our mark. All else on the node belongs to
//! others. An address that another interface has already is in its place: it is neither added again nor removed.

mod rtnl;
mod watch;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_route::link::InfoKind;
use tokio::time::timeout;

use self::rtnl::{Link, Placed, Rtnl};
use self::watch::{Interest, Watch};
pub(super) use self::words::listed;
use super::status::{Action, Trouble};

/// How long the kernel may take. It answers within a millisecond, unless somebody changes a great many interfaces.
const PATIENCE: Duration = Duration::from_secs(2);

/// The number of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Looks after the interface and its addresses. To be used inside a runtime.
pub struct Links {
    rtnl: Rtnl,
    watch: Watch,
    /// The kind of interface that is made.
    kind: InfoKind,
    /// What was asked for last.
    interest: Interest,
    place: Option<String>,
    /// Whether the interface was there once; what comes again was lost.
    had_link: bool,
    had: BTreeSet<IpAddr>,
    /// The addresses that other interfaces have, as told.
    elsewhere: BTreeMap<IpAddr, u32>,
    told_of_loopback: bool,
    /// Everything on the interface is to go, not only the addresses that are wanted.
    sweeps: bool,
}

/// What one call did and could not do.
#[derive(Default)]
struct Round {
    actions: Vec<Action>,
    troubles: Vec<Trouble>,
}

impl Links {
    /// Connects to the kernel, and changes nothing yet. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the kernel gives no netlink socket.
    pub fn connect() -> Result<Links, Trouble> {
        Links::of_kind(InfoKind::Dummy).map_err(|error| words::unconnected(&error))
    }

    fn of_kind(kind: InfoKind) -> io::Result<Links> {
        Ok(Links {
            rtnl: Rtnl::connect()?,
            watch: Watch::open()?,
            kind,
            interest: Interest::default(),
            place: None,
            had_link: false,
            had: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            told_of_loopback: false,
            sweeps: false,
        })
    }

    /// Makes the node have these addresses, on the interface of that name where nothing else has them, and says what it
    /// did and what it could not do. Does nothing if all is in place.
    pub async fn ensure(&mut self, name: &str, addresses: &[IpAddr]) -> (Vec<Action>, Vec<Trouble>) {
        name.clone_into(&mut self.interest.name);
        addresses.clone_into(&mut self.interest.addresses);
        let mut round = Round::default();
        if let Err(error) = self.reconnect() {
            return (round.actions, vec![words::unconnected(&error)]);
        }
        match timeout(PATIENCE, self.settle(&mut round)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => round.troubles.push(trouble),
            Err(_) => round.troubles.push(words::slow()),
        }
        (round.actions, round.troubles)
    }

    /// Nobody lives here any longer: [`Links::remove`] takes the interface with everything on it, and what is on `lo` of
    /// these addresses.
    pub fn expect(&mut self, addresses: &[IpAddr]) {
        self.sweeps = true;
        addresses.clone_into(&mut self.interest.addresses);
    }

    /// Takes away what is ours, except for the addresses in `keep` and an interface that has one of them. Returns what was
    /// removed, in words; what could not be is in the log. Without wanted addresses everything that bears our mark is ours.
    pub async fn remove(&mut self, name: &str, keep: &[IpAddr]) -> Vec<String> {
        let (removed, trouble) = self.try_remove(name, keep).await;
        if let Some(trouble) = trouble {
            tracing::warn!("{trouble}");
        }
        removed
    }

    /// As [`Links::remove`], and why there may be more.
    pub async fn try_remove(&mut self, name: &str, keep: &[IpAddr]) -> (Vec<String>, Option<Trouble>) {
        let mut removed = Vec::new();
        let done = match self.reconnect() {
            Ok(()) => timeout(PATIENCE, self.clear(name, keep, &mut removed)).await,
            Err(error) => Ok(Err(error)),
        };
        let trouble = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(words::unremoved(name, &error.to_string())),
            Err(_) => Some(words::unremoved(name, "the kernel took too long to answer")),
        };
        (removed, trouble)
    }

    /// Waits until something about the interface or the addresses of the last [`Links::ensure`] has changed, or may have.
    /// Cancel-safe.
    pub async fn changed(&mut self) {
        self.watch.changed(&self.interest).await;
    }

    /// The interface that has the addresses, `lo` if they are there; `None` if they are nowhere.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    fn reconnect(&mut self) -> io::Result<()> {
        if self.rtnl.broken() {
            self.rtnl = Rtnl::connect()?;
        }
        if self.watch.broken() {
            self.watch = Watch::open()?;
        }
        Ok(())
    }

    async fn settle(&mut self, round: &mut Round) -> Result<(), Trouble> {
        let mut present = self.rtnl.addresses().await.map_err(|error| words::unreadable(&error))?;
        present.retain(|placed| self.interest.addresses.contains(&placed.address));
        let is_missing = |address: &&IpAddr| !present.iter().any(|placed| placed.address == **address);
        let missing: Vec<IpAddr> = self.interest.addresses.iter().filter(is_missing).copied().collect();

        let carrier = self.carrier(&present, &missing, round).await;
        if let Ok(Some(link)) = &carrier {
            self.interest.index = Some(link.index);
            self.raise(link, round).await;
            let added = self.fill(link, &missing, round).await;
            self.had.extend(added);
        }
        let ours = carrier.as_ref().ok().and_then(Option::as_ref);
        self.note(ours, &present).await.map_err(|error| words::unreadable(&error))?;
        carrier.map(drop)
    }

    /// The interface that is ours to look after: the one of the name, made if it is needed, else `lo` if it has to do.
    async fn carrier(
        &mut self,
        present: &[Placed],
        missing: &[IpAddr],
        round: &mut Round,
    ) -> Result<Option<Link>, Trouble> {
        let name = self.interest.name.clone();
        let unreadable = |error| words::unreadable(&error);
        match self.rtnl.named(&name).await.map_err(unreadable)? {
            Some(link) if self.is_ours(&link) || link.loopback => return Ok(Some(link)),
            Some(_) if missing.is_empty() => return Ok(None),
            Some(link) => return Err(words::foreign(&name, &link, missing)),
            None => {}
        }
        if missing.is_empty() {
            let fallen_back = present.iter().any(|placed| placed.index == LOOPBACK && (placed.marked || placed.alike));
            return if fallen_back { self.rtnl.numbered(LOOPBACK).await.map_err(unreadable) } else { Ok(None) };
        }
        match self.rtnl.add(&name, &self.kind).await {
            Ok(()) => {
                tracing::info!("Added {}interface - {name}", if self.had_link { "back " } else { "" });
                round.actions.push(Action::LinkAdded);
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.tell_of_loopback(&error);
                return self.rtnl.numbered(LOOPBACK).await.map_err(unreadable);
            }
            Err(error) if forbids(&error) => return Err(words::forbidden(missing)),
            Err(error) => return Err(words::unmade(&name, &error, missing)),
        }
        self.rtnl.named(&name).await.map_err(unreadable)
    }

    fn is_ours(&self, link: &Link) -> bool {
        // The kernel finds interfaces by their alternative names too.
        link.name == self.interest.name && link.kind.as_ref() == Some(&self.kind)
    }

    fn tell_of_loopback(&mut self, error: &io::Error) {
        if !self.told_of_loopback {
            let name = &self.interest.name;
            tracing::info!(
                "The kernel cannot make the interface {name}, because it has no dummy links ({error}): the addresses go \
                 on lo, where they serve as well"
            );
            self.told_of_loopback = true;
        }
    }

    async fn raise(&self, link: &Link, round: &mut Round) {
        if link.up {
            return;
        }
        match self.rtnl.up(link).await {
            Ok(()) => {
                tracing::info!("Brought up interface - {}", link.name);
                round.actions.push(Action::LinkUp);
            }
            Err(error) => round.troubles.push(words::down(link, &error)),
        }
    }

    /// Puts the missing addresses on the interface; returns those it has.
    async fn fill(&self, link: &Link, missing: &[IpAddr], round: &mut Round) -> Vec<IpAddr> {
        let (mut added, mut no_ipv6) = (Vec::new(), Vec::new());
        for (at, address) in missing.iter().enumerate() {
            let Err(error) = self.rtnl.place(*address, link).await else {
                added.push(*address);
                continue;
            };
            match error.raw_os_error() {
                Some(libc::EEXIST) => {}
                // The interface has gone meanwhile, which is an event of its own.
                Some(libc::ENODEV) => break,
                Some(libc::EPERM) => {
                    round.troubles.push(words::forbidden(&missing[at..]));
                    break;
                }
                Some(libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) if address.is_ipv6() => {
                    no_ipv6.push(*address);
                }
                _ => round.troubles.push(words::refused(*address, link, &error)),
            }
        }
        if !no_ipv6.is_empty() {
            round.troubles.push(words::no_ipv6(link, &no_ipv6));
        }
        let (back, first): (Vec<IpAddr>, Vec<IpAddr>) = added.iter().partition(|address| self.had.contains(address));
        for (word, addresses) in [("Added", first), ("Added back", back)] {
            if !addresses.is_empty() {
                tracing::info!("{word} {} - {}", words::listed(&addresses), link.name);
            }
        }
        round.actions.extend(added.iter().map(|_| Action::AddressAdded));
        added
    }

    /// Remembers where the addresses are, and says once which of them others have placed.
    async fn note(&mut self, ours: Option<&Link>, present: &[Placed]) -> io::Result<()> {
        self.had_link |= ours.is_some_and(|link| !link.loopback);
        self.place = ours.map(|link| link.name.clone());
        self.elsewhere.retain(|address, index| present.iter().any(|at| (at.address, at.index) == (*address, *index)));
        for placed in present {
            let address = placed.address;
            let twin = |other: &Placed| other.address == address && Some(other.index) == ours.map(|link| link.index);
            if present.iter().any(twin) {
                self.had.insert(address);
                continue;
            }
            let told = self.elsewhere.contains_key(&address);
            if told && self.place.is_some() {
                continue;
            }
            let Some(link) = self.rtnl.numbered(placed.index).await? else { continue };
            if !told {
                tracing::info!("{address} is on {} already and stays there", link.name);
                self.elsewhere.insert(address, placed.index);
            }
            self.place.get_or_insert(link.name);
        }
        Ok(())
    }

    async fn clear(&mut self, name: &str, keep: &[IpAddr], removed: &mut Vec<String>) -> io::Result<()> {
        name.clone_into(&mut self.interest.name);
        let present = self.rtnl.addresses().await?;
        if let Some(link) = self.rtnl.named(name).await?.filter(|link| self.is_ours(link)) {
            let on_it: Vec<&Placed> = present.iter().filter(|placed| placed.index == link.index).collect();
            // What another instance has there, and this one does not know, is its own.
            let wanted = &self.interest.addresses;
            let is_ours = |placed: &&Placed| self.sweeps || wanted.is_empty() || wanted.contains(&placed.address);
            let stays = |placed: &&Placed| placed.whole && !is_ours(placed) || keep.contains(&placed.address);
            if !on_it.iter().any(stays) {
                self.rtnl.delete(&link).await?;
                removed.push(format!("interface {name}"));
            } else {
                let whole = on_it.into_iter().filter(|placed| placed.whole).filter(is_ours);
                self.displace(whole, &link, keep, removed).await?;
            }
        }
        let wanted = &self.interest.addresses;
        let is_ours = |placed: &&Placed| match wanted.as_slice() {
            [] => placed.marked,
            wanted => wanted.contains(&placed.address) && (placed.marked || placed.alike),
        };
        let fallen_back = present.iter().filter(|placed| placed.index == LOOPBACK).filter(is_ours);
        match self.rtnl.numbered(LOOPBACK).await? {
            Some(lo) => self.displace(fallen_back, &lo, keep, removed).await,
            None => Ok(()),
        }
    }

    async fn displace(
        &self,
        placed: impl Iterator<Item = &Placed>,
        link: &Link,
        keep: &[IpAddr],
        removed: &mut Vec<String>,
    ) -> io::Result<()> {
        for placed in placed.filter(|placed| !keep.contains(&placed.address)) {
            self.rtnl.displace(placed.address, link).await?;
            removed.push(format!("{} from {}", placed.address, link.name));
        }
        Ok(())
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("place", &self.place).field("interest", &self.interest).finish_non_exhaustive()
    }
}

fn forbids(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}
