//! The items of a list, by what tells them apart.

use serde_json::Value;

use super::path::PathElement;
use super::schema::Items;

/// The items of a list whose items have owners of their own.
pub(super) struct Indexed<'v> {
    /// Ordered by element, and equals by their places in the list.
    items: Vec<(PathElement, &'v Value)>,
    /// Where in `items` each element first stands, in the order of the list.
    order: Vec<usize>,
}

impl<'v> Indexed<'v> {
    /// `None` if some item cannot be told apart: such a list can only be taken as a whole.
    pub(super) fn of(items: Items<'_>, list: &'v [Value]) -> Option<Self> {
        let mut placed = Vec::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            placed.push((items.element(item).ok()?, place, item));
        }
        placed.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let first = |at: &usize| *at == 0 || placed[at - 1].0 != placed[*at].0;
        let mut order: Vec<_> = (0..placed.len()).filter(first).collect();
        order.sort_unstable_by_key(|at| placed[*at].1);
        Some(Self { items: placed.into_iter().map(|(element, _, item)| (element, item)).collect(), order })
    }

    pub(super) fn empty() -> Self {
        Self { items: Vec::new(), order: Vec::new() }
    }

    /// What tells the items apart, in the order of the list, each once.
    pub(super) fn elements(&self) -> impl Iterator<Item = &PathElement> + Clone {
        self.order.iter().map(|at| &self.items[*at].0)
    }

    /// The items of that element: one, mostly, but stored lists may hold it twice; none, if the list does not have it.
    pub(super) fn get(&self, element: &PathElement) -> &[(PathElement, &'v Value)] {
        let start = self.items.partition_point(|(e, _)| e < element);
        let len = self.items[start..].iter().take_while(|(e, _)| e == element).count();
        &self.items[start..start + len]
    }

    pub(super) fn has(&self, element: &PathElement) -> bool {
        !self.get(element).is_empty()
    }
}
