//! The table of messages: `messages.txt`, read when the first protobuf body comes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::special::Special;

/// All messages.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    by_name: BTreeMap<&'static str, u16>,
}

/// A message: its name, such as `core.v1.Pod`, and its fields by number.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// The name in JSON.
    pub(super) name: &'static str,
    pub(super) type_: Type,
    pub(super) shape: Shape,
    /// Go writes the zero value of a field that was not set.
    pub(super) zero_is_unset: bool,
    /// Its fields are the parent's in JSON.
    pub(super) inline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Repeated,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bool,
    Int,
    Double,
    Bytes,
    Special(Special),
    Message(u16),
}

impl Type {
    /// Whether the last of several values counts, and not all of them together.
    pub(super) fn is_scalar(self) -> bool {
        !matches!(self, Self::Special(_) | Self::Message(_))
    }
}

impl Table {
    pub(super) fn get() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::parse(include_str!("messages.txt")))
    }

    pub(super) fn message(&self, index: u16) -> &Message {
        &self.messages[usize::from(index)]
    }

    pub(super) fn named(&self, name: &str) -> Option<&Message> {
        self.by_name.get(name).map(|&index| self.message(index))
    }

    /// The message of a kind.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<&Message> {
        if kind == "DeleteOptions" {
            // It is sent under the version of what is to be deleted.
            return self.named("meta.v1.DeleteOptions");
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        let package = group.split('.').next().unwrap_or_default();
        self.named(&format!("{package}.{version}.{kind}"))
    }

    fn parse(text: &'static str) -> Self {
        let lines = || text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        let names = lines().filter(|l| !l.starts_with(' '));
        let by_name: BTreeMap<_, _> = names.zip(0u16..).collect();
        let mut messages: Vec<Message> = Vec::with_capacity(by_name.len());
        for line in lines() {
            match (line.strip_prefix(' '), messages.last_mut()) {
                (Some(line), Some(message)) => message.fields.push(field(line, message.name, &by_name)),
                (Some(_), None) => panic!("messages.txt begins with a field"),
                (None, _) => messages.push(Message { name: line, fields: Vec::new() }),
            }
        }
        Self { messages, by_name }
    }
}

/// Reads `NUMBER NAME TYPE`.
fn field(line: &'static str, message: &str, by_name: &BTreeMap<&'static str, u16>) -> Field {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_else(|| panic!("messages.txt: {message}: {line}"));
    let (number, name, type_) = (word(), word(), word());
    let (shape, type_) = match type_.as_bytes()[0] {
        b'*' => (Shape::Repeated, &type_[1..]),
        b'%' => (Shape::Map, &type_[1..]),
        _ => (Shape::One, type_),
    };
    let (zero_is_unset, type_) = match type_.strip_suffix('?') {
        Some(type_) => (true, type_),
        None => (false, type_),
    };
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    let type_ = match type_ {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        name => match (Special::named(name), name.strip_prefix('.')) {
            (Some(special), _) => Type::Special(special),
            (None, Some(sibling)) => Type::Message(by_name[format!("{package}.{sibling}").as_str()]),
            (None, None) => Type::Message(by_name[name]),
        },
    };
    let number = number.parse().unwrap_or_else(|_| panic!("messages.txt: {message}: {line}"));
    Field { number, name, type_, shape, zero_is_unset, inline: name == "-" }
}

#[cfg(test)]
impl Table {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }
}
