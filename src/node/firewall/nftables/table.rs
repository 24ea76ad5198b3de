//! A table as we want it: written in one transaction, compared with what the kernel has.

use std::io;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::NetfilterProtoFamily::Inet;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};

use super::expressions;
use crate::node::netfilter::{Change, Netfilter};

/// Whatever falls through a chain of ours goes on (NF_ACCEPT).
const ACCEPT: u32 = 1;

/// The longest comment that the `nft` program shows.
const LONGEST_COMMENT: usize = 128;

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: String,
    /// What it is for, in words for who lists it.
    pub(super) comment: String,
    /// Whether it belongs to the socket that writes it, and ends with it.
    pub(super) owned: bool,
    /// Its chains; one that another jumps to stands before it.
    pub(super) chains: Vec<Chain>,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its name.
    pub(super) name: &'static str,
    /// Where packets enter it; `None` for one that others jump to.
    pub(super) place: Option<Place>,
    /// Its rules, in order.
    pub(super) rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// The hook.
    pub(super) hook: InetHookNumber,
    /// Lower ones come first.
    pub(super) priority: i32,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it does, in words for who lists it.
    pub(super) comment: String,
    /// What it does.
    pub(super) expressions: Vec<Expressions>,
}

/// A rule that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) chain: String,
    pub(super) rule: Rule,
}

impl Table {
    /// A table without chains.
    pub(super) fn empty(name: String, comment: String, owned: bool) -> Self {
        Self { name, comment, owned, chains: Vec::new() }
    }

    /// The changes that make the kernel have this table, whatever it had of that name.
    pub(super) fn writing(&self) -> Vec<Change> {
        let mut changes = self.removing();
        changes.push(change(NLM_F_CREATE, NfTablesMessage::NewTable(self.head())));
        for chain in &self.chains {
            changes.push(change(NLM_F_CREATE, NfTablesMessage::NewChain(self.chain(chain))));
        }
        for chain in &self.chains {
            let rules = chain.rules.iter().map(|rule| NfTablesMessage::NewRule(self.rule(chain, rule)));
            changes.extend(rules.map(|rule| change(NLM_F_CREATE | NLM_F_APPEND, rule)));
        }
        changes
    }

    /// The changes that make the kernel not have a table of that name.
    pub(super) fn removing(&self) -> Vec<Change> {
        // To delete what is not there is an error, so it is made first.
        vec![
            change(NLM_F_CREATE, NfTablesMessage::NewTable(self.head())),
            change(0, NfTablesMessage::DeleteTable(named(&self.name))),
        ]
    }

    /// Whether the kernel has exactly this table; the comment may differ. Errors: the kernel's.
    pub(super) fn is_in_place(&self, kernel: &mut Netfilter) -> io::Result<bool> {
        let Some(found) = read(kernel, &self.name)? else { return Ok(false) };
        // In use are chains, and sets and more, which we never have.
        let used = found.attributes.iter().find_map(|attribute| match attribute {
            TableAttribute::Use(count) => usize::try_from(*count).ok(),
            _ => None,
        });
        if owner(&found).is_some() != self.owned || used != Some(self.chains.len()) || is_dormant(&found) {
            return Ok(false);
        }
        for chain in &self.chains {
            if !self.has_chain(kernel, chain)? {
                return Ok(false);
            }
        }
        let found = rules(kernel, &self.name)?;
        let wanted = self.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain.name, rule)));
        let wanted: Vec<(&str, &Rule)> = wanted.collect();
        Ok(wanted.len() == found.len()
            && self.chains.iter().all(|chain| {
                let found = found.iter().filter(|found| found.chain == chain.name);
                found.clone().count() == chain.rules.len()
                    && chain.rules.iter().zip(found).all(|(wanted, found)| wanted.is(&found.rule))
            }))
    }

    fn has_chain(&self, kernel: &mut Netfilter, chain: &Chain) -> io::Result<bool> {
        let name = ChainAttribute::Name(chain.name.to_owned());
        let attributes = vec![ChainAttribute::Table(self.name.clone()), name];
        let found = match kernel.get(Inet, NfTablesMessage::GetChain(ChainMessage { attributes })) {
            Ok(NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(found))) => found.attributes,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
            answer => return answer.map(|_| false),
        };
        let wanted = self.chain(chain).attributes;
        // A hook holds attributes of its own, and the kernel may add to them.
        let (hooks, plain): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|attribute| matches!(attribute, ChainAttribute::Hook(_)));
        let hook = found.iter().find_map(|attribute| match attribute {
            ChainAttribute::Hook(hook) => Some(hook),
            _ => None,
        });
        let same_hook = match hooks.first() {
            Some(ChainAttribute::Hook(wanted)) => {
                hook.is_some_and(|hook| wanted.iter().all(|part| hook.contains(part)))
            }
            _ => hook.is_none(),
        };
        Ok(same_hook && plain.iter().all(|attribute| found.contains(attribute)))
    }

    fn head(&self) -> TableMessage {
        let mut head = named(&self.name);
        if self.owned {
            head.attributes.push(TableAttribute::Flags(TableFlags::Owner));
        }
        head.attributes.push(TableAttribute::UserData(remark(&self.comment)));
        head
    }

    fn chain(&self, chain: &Chain) -> ChainMessage {
        let mut attributes =
            vec![ChainAttribute::Table(self.name.clone()), ChainAttribute::Name(chain.name.to_owned())];
        if let Some(place) = chain.place {
            // The kernel's number is signed; the bits are the same.
            let priority = Hook::Priority(place.priority.cast_unsigned());
            attributes.push(ChainAttribute::Hook(vec![Hook::Number(HookNumber::Inet(place.hook)), priority]));
            attributes.push(ChainAttribute::Policy(ACCEPT));
            attributes.push(ChainAttribute::Type(place.kind.to_owned()));
        }
        ChainMessage { attributes }
    }

    fn rule(&self, chain: &Chain, rule: &Rule) -> RuleMessage {
        let expressions = rule.expressions.iter().cloned().map(ListAttribute::from).collect();
        RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Expressions(expressions),
                RuleAttribute::UserData(remark(&rule.comment)),
            ],
        }
    }
}

impl Rule {
    fn is(&self, found: &Rule) -> bool {
        let mut pairs = self.expressions.iter().zip(&found.expressions);
        self.comment == found.comment
            && self.expressions.len() == found.expressions.len()
            && pairs.all(|(wanted, found)| expressions::same(wanted, found))
    }
}

/// The head of the table of that name, if the kernel has it. Errors: the kernel's.
pub(super) fn read(kernel: &mut Netfilter, name: &str) -> io::Result<Option<TableMessage>> {
    match kernel.get(Inet, NfTablesMessage::GetTable(named(name))) {
        Ok(NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table))) => Ok(Some(table)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        answer => answer.map(|_| None),
    }
}

/// The heads of all tables of family `inet`. Errors: the kernel's.
pub(super) fn all(kernel: &mut Netfilter) -> io::Result<Vec<TableMessage>> {
    let listed = kernel.list(Inet, NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() }))?;
    let tables = listed.into_iter().filter_map(|message| match message {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => Some(table),
        _ => None,
    });
    Ok(tables.collect())
}

/// The rules of the table of that name, in order within each chain. Errors: the kernel's.
pub(super) fn rules(kernel: &mut Netfilter, table: &str) -> io::Result<Vec<Found>> {
    let attributes = vec![RuleAttribute::Table(table.to_owned())];
    let listed = kernel.list(Inet, NfTablesMessage::GetRule(RuleMessage { attributes }))?;
    let rules = listed.into_iter().filter_map(|message| match message {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) => Some(found(rule)),
        _ => None,
    });
    Ok(rules.collect())
}

/// The table's name.
pub(super) fn name(table: &TableMessage) -> &str {
    let mut attributes = table.attributes.iter();
    attributes
        .find_map(|attribute| match attribute {
            TableAttribute::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

/// The socket that the table belongs to, by the kernel's number.
pub(super) fn owner(table: &TableMessage) -> Option<u32> {
    table.attributes.iter().find_map(|attribute| match attribute {
        TableAttribute::Owner(port) => Some(*port),
        _ => None,
    })
}

/// The table's comment, empty if there is none.
pub(super) fn comment(table: &TableMessage) -> String {
    let remarks = table.attributes.iter().find_map(|attribute| match attribute {
        TableAttribute::UserData(data) => Some(remarked(data)),
        _ => None,
    });
    remarks.unwrap_or_default()
}

fn is_dormant(table: &TableMessage) -> bool {
    table
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant)))
}

fn found(message: RuleMessage) -> Found {
    let mut found = Found { chain: String::new(), rule: Rule { comment: String::new(), expressions: Vec::new() } };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Chain(name) => found.chain = name,
            RuleAttribute::UserData(data) => found.rule.comment = remarked(&data),
            RuleAttribute::Expressions(list) => {
                found.rule.expressions = list.into_iter().filter_map(expression).collect()
            }
            _ => {}
        }
    }
    found
}

fn expression(element: ListAttribute<ExpressionAttribute>) -> Option<Expressions> {
    let ListAttribute::Element(parts) = element else { return None };
    let name = parts.iter().find_map(|part| match part {
        ExpressionAttribute::Name(name) => Some(name.clone()),
        _ => None,
    });
    let data = parts.into_iter().find_map(|part| match part {
        ExpressionAttribute::Data(data) => Some(data),
        _ => None,
    });
    // One that says nothing beyond its name comes without data.
    data.or_else(|| name.map(|expression_type| Expressions::Other { expression_type, attributes: Vec::new() }))
}

fn named(name: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] }
}

fn change(flags: u16, message: NfTablesMessage) -> Change {
    Change { flags, message: message.into() }
}

/// A comment the way the `nft` program writes it: kind 0, length, text, end.
fn remark(text: &str) -> Vec<u8> {
    let mut end = text.len().min(LONGEST_COMMENT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let length = u8::try_from(end + 1).expect("bounded above");
    [&[0, length], &text.as_bytes()[..end], &[0]].concat()
}

fn remarked(data: &[u8]) -> String {
    let text = match data {
        [0, length, text @ ..] => text.get(..usize::from(*length).saturating_sub(1)).unwrap_or_default(),
        _ => &[],
    };
    String::from_utf8_lossy(text).into_owned()
}
