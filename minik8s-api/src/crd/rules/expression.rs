//! Expressions of admission: policies and the conditions of webhooks
//! (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cel::common::types::{CelBool, CelNull, CelString};
use cel::common::value::Val;
use cel::{Context, Program, Value as CelValue};
use serde_json::Value;

use super::access::{self, Authorize};
use super::{check, cost, environment, values};

/// The variables that expressions of admission may speak of.
pub const VARIABLES: &[&str] =
    &["object", "oldObject", "request", "authorizer", "namespaceObject", "params", "variables"];

/// A compiled expression.
#[derive(Clone)]
pub struct Expression {
    text: String,
    program: Arc<Program>,
    cost: cost::Shape,
}

impl Expression {
    /// Compiles an expression over variables of these names.
    ///
    /// # Errors
    /// It is no CEL, or it speaks of variables or functions that do not exist; the words say where.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, String> {
        let program = environment::of_admission().compile(text).map_err(|e| e.to_string())?;
        check::untyped(&program, variables, access::FUNCTIONS)?;
        let cost = cost::Shape::of(program.expression());
        Ok(Self { text: text.trim().to_owned(), program: Arc::new(program), cost })
    }

    /// What was compiled.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.text)
    }
}

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Nothing.
    Null,
    /// Something else, of that type.
    Other(String),
}

/// The values of variables, and how much work has been done with them.
pub struct Bindings<'v> {
    context: Context<'v, 'v>,
    size: cost::Size,
    steps: u64,
    variables: values::Fields<'v>,
    /// Variables that have no value, with the reason.
    failed: BTreeMap<String, String>,
}

impl fmt::Debug for Bindings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bindings")
    }
}

impl Default for Bindings<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'v> Bindings<'v> {
    /// No variables.
    pub fn new() -> Self {
        Self {
            context: Context::with_env(environment::of_admission().clone()),
            size: cost::Size::default(),
            steps: 0,
            variables: values::Fields::default(),
            failed: BTreeMap::new(),
        }
    }

    /// Gives the variable `name` a value.
    pub fn bind(&mut self, name: &str, value: &'v Value) {
        self.size.add(value);
        self.context.add_variable_as_val(name, values::value(value, None));
    }

    /// Lets expressions ask `authorizer` what may be done.
    pub fn bind_authorizer(&mut self, name: &str, authorizer: Arc<dyn Authorize>) {
        self.context.add_variable_as_val(name, access::root(authorizer));
    }

    /// Lets expressions ask what may be done with the object of the request, which `question` names.
    pub fn bind_request(&mut self, name: &str, authorizer: Arc<dyn Authorize>, question: access::Question) {
        self.context.add_variable_as_val(name, access::about(authorizer, question));
    }

    /// Gives `variables.NAME` the value of an expression. An error is one of whoever uses it.
    pub fn define(&mut self, name: &'v str, expression: &Expression) {
        match self.resolve(expression) {
            Ok(value) => self.variables.insert(name, value),
            Err(error) => drop(self.failed.insert(name.to_owned(), error)),
        }
        self.context.add_variable_as_val("variables", self.variables.clone_as_boxed());
    }

    /// What the expression comes to.
    ///
    /// # Errors
    /// It cannot be evaluated, or it would be too much work.
    pub fn evaluate(&mut self, expression: &Expression) -> Result<Answer, String> {
        let value = self.resolve(expression)?;
        let value = value.as_ref();
        Ok(if let Some(bool) = value.downcast_ref::<CelBool>() {
            Answer::Bool(*bool.inner())
        } else if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            Answer::Text(text.inner().to_owned())
        } else if value.downcast_ref::<CelNull>().is_some() {
            Answer::Null
        } else {
            Answer::Other(value.get_type().name().to_owned())
        })
    }

    fn resolve(&mut self, expression: &Expression) -> Result<Box<dyn Val + 'v>, String> {
        self.steps = self.steps.saturating_add(expression.cost.steps(self.size));
        if self.steps > cost::LIMIT {
            return Err("operation cancelled: actual cost limit exceeded".to_owned());
        }
        let value = CelValue::resolve_val(expression.program.expression(), &self.context);
        value.map(|value| value.into_owned()).map_err(|error| {
            let used =
                self.failed.iter().find(|(name, _)| expression.text.contains(&format!("variables.{name}")));
            match used {
                Some((name, why)) => format!("composited variable \"{name}\" fails to evaluate: {why}"),
                None => error.to_string(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NAMES: &[&str] = &["object", "oldObject", "params", "variables", "authorizer"];

    fn evaluate(text: &str, object: &Value) -> Result<Answer, String> {
        let nothing = Value::Null;
        let mut bindings = Bindings::new();
        bindings.bind("object", object);
        bindings.bind("oldObject", &nothing);
        bindings.evaluate(&Expression::compile(text, NAMES)?)
    }

    #[test]
    fn objects_are_looked_into() {
        let object = json!({ "spec": { "replicas": 7, "template": { "spec": { "containers": [
            { "name": "a", "image": "registry.example/a" }, { "name": "b", "image": "b" }] } } } });
        let cases = [
            ("object.spec.replicas <= 5", Answer::Bool(false)),
            ("has(object.spec.paused)", Answer::Bool(false)),
            ("oldObject == null", Answer::Bool(true)),
            (
                "object.spec.template.spec.containers.filter(c, !c.image.startsWith('registry.example/')).map(c, \
                 c.name).join(', ')",
                Answer::Text("b".to_owned()),
            ),
            ("oldObject", Answer::Null),
        ];
        for (text, expected) in cases {
            assert_eq!(evaluate(text, &object), Ok(expected), "{text}");
        }
        assert!(evaluate("object.spec.none.more", &object).unwrap_err().contains("none"));
        assert!(evaluate("nobody.spec", &object).unwrap_err().contains("undeclared reference to 'nobody'"));
        assert!(evaluate("object.frobnicate()", &object).unwrap_err().contains("frobnicate"));
    }

    #[test]
    fn variables_build_upon_one_another() {
        let object = json!({ "spec": { "replicas": 7 } });
        let compiled = |text: &str| Expression::compile(text, NAMES).unwrap();
        let mut bindings = Bindings::new();
        bindings.bind("object", &object);
        bindings.define("replicas", &compiled("object.spec.replicas"));
        bindings.define("many", &compiled("variables.replicas > 5"));
        bindings.define("broken", &compiled("object.spec.none"));
        assert_eq!(bindings.evaluate(&compiled("variables.many")), Ok(Answer::Bool(true)));
        let error = bindings.evaluate(&compiled("variables.broken == 1")).unwrap_err();
        assert!(error.starts_with("composited variable \"broken\" fails to evaluate: "), "{error}");
    }

    #[test]
    fn rights_can_be_asked_for() {
        struct Reads;
        impl Authorize for Reads {
            fn check(&self, question: &access::Question) -> (bool, String) {
                let allowed = question.verb == "get"
                    && question.resource == "secrets"
                    && question.namespace == "default"
                    && question.service_account.is_none();
                (allowed, if allowed { String::new() } else { "only secrets are read".to_owned() })
            }
        }
        let mut bindings = Bindings::new();
        bindings.bind_authorizer("authorizer", Arc::new(Reads));
        let secrets = "authorizer.group('').resource('secrets').namespace('default')";
        let cases = [
            (format!("{secrets}.check('get').allowed()"), Answer::Bool(true)),
            (format!("{secrets}.name('x').check('delete').allowed()"), Answer::Bool(false)),
            (format!("{secrets}.check('delete').reason()"), Answer::Text("only secrets are read".to_owned())),
            ("authorizer.path('/healthz').check('get').allowed()".to_owned(), Answer::Bool(false)),
            (
                "authorizer.serviceAccount('a', 'b').group('').resource('secrets').namespace('default')\
                 .check('get').allowed()"
                    .to_owned(),
                Answer::Bool(false),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                bindings.evaluate(&Expression::compile(&text, NAMES).unwrap()),
                Ok(expected),
                "{text}"
            );
        }
    }
}
