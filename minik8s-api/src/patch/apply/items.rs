//! The items of a list, by what tells them apart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::path::PathElement;
use super::schema::Items;

/// The items of a list whose items have owners of their own.
pub(super) struct Indexed<'v> {
    /// What tells them apart, in the order of the list, each once.
    pub(super) order: Vec<PathElement>,
    /// Stored lists may hold an item twice.
    by_element: BTreeMap<PathElement, Vec<&'v Value>>,
}

impl<'v> Indexed<'v> {
    /// `None` if some item cannot be told apart: such a list can only be taken as a whole.
    pub(super) fn of(items: Items<'_>, list: &'v [Value]) -> Option<Self> {
        let mut index = Self { order: Vec::with_capacity(list.len()), by_element: BTreeMap::new() };
        for item in list {
            let element = items.element(item).ok()?;
            let there = index.by_element.entry(element.clone()).or_default();
            if there.is_empty() {
                index.order.push(element);
            }
            there.push(item);
        }
        Some(index)
    }

    pub(super) fn empty() -> Self {
        Self { order: Vec::new(), by_element: BTreeMap::new() }
    }

    /// The items of that element: one, mostly; none, if the list does not have it.
    pub(super) fn get(&self, element: &PathElement) -> &[&'v Value] {
        self.by_element.get(element).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, element: &PathElement) -> bool {
        self.by_element.contains_key(element)
    }
}
