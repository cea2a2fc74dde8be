//! Rights in expressions: `authorizer.group('').resource('pods').namespace('x').check('create').allowed()`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use cel::common::types::{CelBool, CelString, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::text::text;

/// What may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The namespace and the name of a service account, if it is not about whoever makes the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource's; then all but the verb is empty.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace; empty for all of them, and for what is in none.
    pub namespace: String,
    /// The object; empty for all of them.
    pub name: String,
    /// What is to be done.
    pub verb: String,
}

/// Who knows what may be done.
pub trait Authorize: Send + Sync + 'static {
    /// Whether that may be done, and why or why not.
    fn check(&self, question: &Question) -> (bool, String);
}

/// The functions of rights.
pub(super) const FUNCTIONS: &[&str] = &[
    "allowed",
    "check",
    "error",
    "errored",
    "group",
    "name",
    "namespace",
    "path",
    "reason",
    "resource",
    "serviceAccount",
    "subresource",
];

static ACCESS: Type = Type::new_unspecified_type("kubernetes.authorization.Authorizer");

/// A question that is being put together, or its answer.
#[derive(Clone)]
struct Access {
    authorizer: Arc<dyn Authorize>,
    question: Question,
    answer: Option<(bool, String)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?}, {:?})", self.question, self.answer)
    }
}

/// An authorizer that has not been asked anything.
pub(super) fn root<'v>(authorizer: Arc<dyn Authorize>) -> Box<dyn Val + 'v> {
    about(authorizer, Question::default())
}

/// An authorizer that has been asked that, but for the verb.
pub(super) fn about<'v>(authorizer: Arc<dyn Authorize>, question: Question) -> Box<dyn Val + 'v> {
    Box::new(Access { authorizer, question, answer: None })
}

impl Val for Access {
    fn get_type(&self) -> &Type {
        &ACCESS
    }

    fn cel_type() -> &'static Type {
        &ACCESS
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let other = other.downcast_ref::<Self>();
        other.is_some_and(|other| other.question == self.question && other.answer == self.answer)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Access {}

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Everything that can be asked.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(ACCESS.to_owned())?;
    let mut with = |name: &str, args: usize, function| {
        let id = format!("authorizer.{name}()");
        env.add_member_overload(
            name,
            &id,
            ACCESS.to_owned(),
            (0..args).map(|_| STRING_TYPE).collect(),
            function,
        )
    };
    with("path", 1, path)?;
    with("group", 1, group)?;
    with("serviceAccount", 2, service_account)?;
    with("resource", 1, resource)?;
    with("subresource", 1, subresource)?;
    with("namespace", 1, namespace)?;
    with("name", 1, name)?;
    with("check", 1, check)?;
    with("allowed", 0, allowed)?;
    with("reason", 0, reason)?;
    with("errored", 0, errored)?;
    with("error", 0, error)
}

fn access<'a>(value: &'a (dyn Val + '_), function: &str) -> Result<&'a Access, ExecutionError> {
    let found = value.downcast_ref::<Access>();
    found.ok_or_else(|| ExecutionError::function_error(function, "is a function of authorizers"))
}

fn refined<'b, 'v>(
    args: &[CowVal<'b, 'v>],
    function: &str,
    refine: impl FnOnce(&mut Question, String),
) -> Answer<'b, 'v> {
    let mut next = access(args[0].as_ref(), function)?.clone();
    refine(&mut next.question, text(args[1].as_ref(), function)?.to_owned());
    Ok(CowVal::owned(next))
}

fn path<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "path", |q, path| q.path = Some(path))
}

fn group<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "group", |q, group| q.group = group)
}

fn resource<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "resource", |q, resource| q.resource = resource)
}

fn subresource<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "subresource", |q, subresource| q.subresource = subresource)
}

fn namespace<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "namespace", |q, namespace| q.namespace = namespace)
}

fn name<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    refined(&args, "name", |q, name| q.name = name)
}

fn service_account<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let account = text(args[2].as_ref(), "serviceAccount")?.to_owned();
    refined(&args, "serviceAccount", |q, namespace| q.service_account = Some((namespace, account)))
}

fn check<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let mut next = access(args[0].as_ref(), "check")?.clone();
    text(args[1].as_ref(), "check")?.clone_into(&mut next.question.verb);
    next.answer = Some(next.authorizer.check(&next.question));
    Ok(CowVal::owned(next))
}

fn answer<'a>(value: &'a (dyn Val + '_), function: &str) -> Result<&'a (bool, String), ExecutionError> {
    let answer = access(value, function)?.answer.as_ref();
    answer.ok_or_else(|| ExecutionError::function_error(function, "comes after check()"))
}

fn allowed<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (allowed, _) = answer(args[0].as_ref(), "allowed")?;
    Ok(CowVal::owned(CelBool::from(*allowed)))
}

fn reason<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (_, reason) = answer(args[0].as_ref(), "reason")?;
    Ok(CowVal::owned(CelString::from(reason.clone())))
}

/// Authorizers of this server always have an answer.
fn errored<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    answer(args[0].as_ref(), "errored")?;
    Ok(CowVal::owned(CelBool::from(false)))
}

fn error<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    answer(args[0].as_ref(), "error")?;
    Ok(CowVal::owned(CelString::from(String::new())))
}
