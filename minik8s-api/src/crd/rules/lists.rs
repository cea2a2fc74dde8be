//! Kubernetes' functions on lists, and CEL's on sets.

use std::cmp::Ordering;

use cel::common::types::{CelBool, CelDouble, CelInt, CelUInt, DYN_TYPE, LIST_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`, and `sets.contains`, `.equivalent`, `.intersects`.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_member_overload("isSorted", "list.isSorted()", LIST_TYPE, vec![], is_sorted)?;
    env.add_member_overload("sum", "list.sum()", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "list.min()", LIST_TYPE, vec![], min)?;
    env.add_member_overload("max", "list.max()", LIST_TYPE, vec![], max)?;
    env.add_member_overload("indexOf", "list.indexOf(dyn)", LIST_TYPE, vec![DYN_TYPE], index_of)?;
    env.add_member_overload(
        "lastIndexOf",
        "list.lastIndexOf(dyn)",
        LIST_TYPE,
        vec![DYN_TYPE],
        last_index_of,
    )?;
    env.add_overload("sets.contains", "sets.contains(list,list)", vec![LIST_TYPE, LIST_TYPE], contains)?;
    env.add_overload(
        "sets.equivalent",
        "sets.equivalent(list,list)",
        vec![LIST_TYPE, LIST_TYPE],
        equivalent,
    )?;
    env.add_overload("sets.intersects", "sets.intersects(list,list)", vec![LIST_TYPE, LIST_TYPE], intersects)
}

fn elements<'b, 'v>(list: &'b (dyn Val + 'v)) -> Result<Vec<&'b (dyn Val + 'v)>, ExecutionError> {
    let iterable = list.as_iterable().ok_or_else(|| ExecutionError::UnexpectedType {
        got: list.get_type().name().to_owned(),
        want: "list".to_owned(),
    })?;
    let mut each = iterable.iter();
    Ok(std::iter::from_fn(move || each.next()).collect())
}

fn compare(a: &dyn Val, b: &dyn Val, function: &str) -> Result<Ordering, ExecutionError> {
    let not = || ExecutionError::function_error(function, "the elements cannot be compared");
    a.as_comparer().ok_or_else(not)?.compare(b)
}

fn is_sorted<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    for pair in elements(args[0].as_ref())?.windows(2) {
        if compare(pair[0], pair[1], "isSorted")?.is_gt() {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let list = elements(args[0].as_ref())?;
    let Some((first, rest)) = list.split_first() else { return Ok(CowVal::owned(CelInt::from(0))) };
    if first.downcast_ref::<CelInt>().is_none()
        && first.downcast_ref::<CelDouble>().is_none()
        && first.downcast_ref::<CelUInt>().is_none()
        && first.get_type().name() != "google.protobuf.Duration"
    {
        return Err(ExecutionError::function_error("sum", "the elements cannot be added"));
    }
    let mut total: Box<dyn Val + 'v> = first.clone_as_boxed();
    for element in rest {
        let adder = total
            .as_adder()
            .ok_or_else(|| ExecutionError::function_error("sum", "the elements cannot be added"))?;
        let next = adder.add(*element)?.into_owned();
        total = next;
    }
    Ok(CowVal::Owned(total))
}

fn extreme<'b, 'v>(args: &[CowVal<'b, 'v>], name: &str, wanted: Ordering) -> Answer<'b, 'v> {
    let list = elements(args[0].as_ref())?;
    let none = || ExecutionError::function_error(name, format!("{name} called on empty list"));
    let (first, rest) = list.split_first().ok_or_else(none)?;
    let mut best = *first;
    for element in rest {
        if compare(*element, best, name)? == wanted {
            best = *element;
        }
    }
    Ok(CowVal::Owned(best.clone_as_boxed()))
}

fn min<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    extreme(&args, "min", Ordering::Less)
}

fn max<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    extreme(&args, "max", Ordering::Greater)
}

fn position<'b, 'v>(at: Option<usize>) -> Answer<'b, 'v> {
    let at = at.and_then(|i| i64::try_from(i).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(at)))
}

fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    position(elements(args[0].as_ref())?.iter().position(|e| e.equals(args[1].as_ref())))
}

fn last_index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    position(elements(args[0].as_ref())?.iter().rposition(|e| e.equals(args[1].as_ref())))
}

/// Whether each of `small` is in `large`.
fn within(small: &[&dyn Val], large: &[&dyn Val]) -> bool {
    small.iter().all(|s| large.iter().any(|l| l.equals(*s)))
}

fn contains<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (large, small) = (elements(args[0].as_ref())?, elements(args[1].as_ref())?);
    Ok(CowVal::owned(CelBool::from(within(&small, &large))))
}

fn equivalent<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (a, b) = (elements(args[0].as_ref())?, elements(args[1].as_ref())?);
    Ok(CowVal::owned(CelBool::from(within(&a, &b) && within(&b, &a))))
}

fn intersects<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (a, b) = (elements(args[0].as_ref())?, elements(args[1].as_ref())?);
    Ok(CowVal::owned(CelBool::from(a.iter().any(|a| b.iter().any(|b| b.equals(*a))))))
}
