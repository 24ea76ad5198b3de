//! The names of a walk in words: how it is known of each whether it exists.

use std::fmt::Write;

use crate::dns::{Name, Rcode};
use crate::observe::Event;
use crate::resolve::{Told, ToldName};

/// A line for each name that was looked at, and one for the namespace.
pub(super) fn steps(told: &Told) -> String {
    let width = told.names.iter().map(|name| shown(&name.name).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (at, name) in told.names.iter().enumerate() {
        if let Some(how) = how(name) {
            let _ = writeln!(text, "       {:<width$}  {how}", shown(&name.name));
        }
        if let Some((namespace, exists)) = told.namespace.as_ref().filter(|_| at == 0) {
            let exists = match exists {
                Some(true) => "the namespace exists, so this is the first name of a list",
                Some(false) => "no such namespace: this is no list's first name",
                None => "nobody knows whether the namespace exists",
            };
            let _ = writeln!(text, "       {:<width$}  {exists}", shown(namespace));
        }
    }
    text
}

fn how(name: &ToldName) -> Option<String> {
    let Some((rcode, has)) = name.said else {
        return name.name.is_empty().then(|| "left out: it would have more than 255 octets".to_owned());
    };
    let said = match rcode {
        Rcode::NXDOMAIN => "does not exist".to_owned(),
        Rcode::NOERROR if has => "has the answer".to_owned(),
        Rcode::NOERROR => "exists, without such records".to_owned(),
        failure => format!("fails with {failure}"),
    };
    let top = name.top.as_ref().map(|top| shown(top));
    let known = match (name.by, top) {
        (Some(Event::StepTop), Some(top)) => {
            let why = if name.possible { "as it was when last asked" } else { "no name of a cluster ends so" };
            format!("{top} was asked for in its place ({why}), and that does not exist")
        }
        (Some(Event::StepAsked), Some(top)) => format!("asked, after {top}, which exists"),
        (Some(Event::StepAsked), None) => "asked".to_owned(),
        _ if name.cut => "known from memory: a name above is denied".to_owned(),
        _ => "known from memory".to_owned(),
    };
    Some(format!("{said}: {known}"))
}

fn shown(wire: &[u8]) -> String {
    Name::from_wire(wire).map_or_else(|| "(no name)".to_owned(), |name| name.to_string())
}
