//! Functions of regular expressions: CEL's `matches`, and Kubernetes' `find` and `findAll`.

use cel::common::types::{CelBool, CelInt, CelList, CelString, INT_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use regex::Regex;

use super::patterns;

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// `matches(string)`, `find(string)` and `findAll(string[, int])`.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    let strings = || vec![STRING_TYPE, STRING_TYPE];
    env.add_overload("matches", "matches", strings(), matches)?;
    env.add_member_overload("matches", "string.matches(string)", STRING_TYPE, vec![STRING_TYPE], matches)?;
    env.add_member_overload("find", "string.find(string)", STRING_TYPE, vec![STRING_TYPE], find)?;
    env.add_member_overload("findAll", "string.findAll(string)", STRING_TYPE, vec![STRING_TYPE], find_all)?;
    let limited = vec![STRING_TYPE, INT_TYPE];
    env.add_member_overload("findAll", "string.findAll(string,int)", STRING_TYPE, limited, find_all)
}

pub(super) fn text<'a>(value: &'a (dyn Val + '_), function: &str) -> Result<&'a str, ExecutionError> {
    let found = value.downcast_ref::<CelString<'_>>().map(CelString::inner);
    found.ok_or_else(|| ExecutionError::function_error(function, "takes a string"))
}

fn regex(value: &dyn Val, function: &str) -> Result<Regex, ExecutionError> {
    patterns::compiled(text(value, function)?, function)
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let text = text(args[0].as_ref(), "matches")?;
    Ok(CowVal::owned(CelBool::from(regex(args[1].as_ref(), "matches")?.is_match(text))))
}

fn find<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let text = text(args[0].as_ref(), "find")?;
    let found = regex(args[1].as_ref(), "find")?.find(text).map_or("", |m| m.as_str()).to_owned();
    Ok(CowVal::owned(CelString::from(found)))
}

fn find_all<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let text = text(args[0].as_ref(), "findAll")?;
    let regex = regex(args[1].as_ref(), "findAll")?;
    let limit = args.get(2).and_then(|l| l.downcast_ref::<CelInt>().map(|l| *l.inner()));
    // A negative limit is none.
    let limit = limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(usize::MAX);
    let found: Vec<Box<dyn Val + 'v>> = regex
        .find_iter(text)
        .take(limit)
        .map(|m| Box::new(CelString::from(m.as_str().to_owned())) as Box<dyn Val + 'v>)
        .collect();
    Ok(CowVal::owned(CelList::from(found)))
}
