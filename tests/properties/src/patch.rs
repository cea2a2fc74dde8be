//! The languages of patches.

use minik8s_api::patch::{json, merge, strategic};

use crate::tree;

/// A patched document is no larger than what was put in, and no deeper than what is read again. The input is a document
/// and a patch, on a line each.
pub(crate) fn holds(data: &[u8]) {
    let Some([document, patch]) = tree::lines::<2>(data) else { return };
    let (size, depth) =
        (tree::size(&document) + tree::size(&patch), tree::depth(&document).max(tree::depth(&patch)));

    let merged = merge::apply(&document, &patch);
    assert!(tree::size(&merged) <= size + 2 && tree::depth(&merged) <= depth);
    assert_eq!(merge::apply(&merged, &patch), merged, "a merge patch is in force when it has been applied");

    if let Ok(patched) = json::apply(&document, &patch) {
        assert!(tree::size(&patched) <= size + json::MAX_COPIED);
        assert!(tree::depth(&patched) <= depth.max(json::MAX_DEPTH));
    }
    for (api_version, kind) in
        [("v1", "Pod"), ("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "ServiceAccount")]
    {
        let kind = crate::registry().by_kind(api_version, kind).expect("a kind");
        if let Ok(patched) = strategic::apply(kind, &document, &patch) {
            assert!(tree::size(&patched) <= size + 2, "{patched}");
            assert!(tree::depth(&patched) <= depth);
        }
    }
}
