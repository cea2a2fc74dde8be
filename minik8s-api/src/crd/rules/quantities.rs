//! Kubernetes' quantities in rules: `quantity("1.5Gi").isLessThan(quantity(self.limit))`.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::traits::Comparer;
use cel::common::types::{CelBool, CelDouble, CelInt, INT_TYPE, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::text::text;
use crate::quantity::{Format, Quantity};

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

static QUANTITY: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// A quantity as a value of CEL.
#[derive(Clone, Debug)]
struct Amount(Quantity);

impl Val for Amount {
    fn get_type(&self) -> &Type {
        &QUANTITY
    }

    fn cel_type() -> &'static Type {
        &QUANTITY
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Amount {}

impl Comparer for Amount {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        match other.downcast_ref::<Self>() {
            Some(other) => Ok(self.0.cmp(&other.0)),
            None => {
                Err(ExecutionError::function_error("compare", "a quantity compares with quantities only"))
            }
        }
    }
}

/// `quantity`, `isQuantity` and the methods of quantities.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("quantity", "quantity(string)", vec![STRING_TYPE], quantity)?;
    env.add_overload("isQuantity", "isQuantity(string)", vec![STRING_TYPE], is_quantity)?;
    let own = || QUANTITY.to_owned();
    env.add_member_overload("isLessThan", "quantity.isLessThan", own(), vec![own()], is_less)?;
    env.add_member_overload("isGreaterThan", "quantity.isGreaterThan", own(), vec![own()], is_greater)?;
    env.add_member_overload("compareTo", "quantity.compareTo", own(), vec![own()], compare_to)?;
    env.add_member_overload("add", "quantity.add(quantity)", own(), vec![own()], add)?;
    env.add_member_overload("add", "quantity.add(int)", own(), vec![INT_TYPE], add)?;
    env.add_member_overload("sub", "quantity.sub(quantity)", own(), vec![own()], sub)?;
    env.add_member_overload("sub", "quantity.sub(int)", own(), vec![INT_TYPE], sub)?;
    env.add_member_overload("sign", "quantity.sign()", own(), vec![], sign)?;
    env.add_member_overload("isInteger", "quantity.isInteger()", own(), vec![], is_integer)?;
    env.add_member_overload("asInteger", "quantity.asInteger()", own(), vec![], as_integer)?;
    env.add_member_overload("asApproximateFloat", "quantity.asApproximateFloat()", own(), vec![], as_float)
}

fn amount(args: &[CowVal<'_, '_>], at: usize) -> Result<Quantity, ExecutionError> {
    let value = args[at].as_ref();
    if let Some(whole) = value.downcast_ref::<CelInt>() {
        return Ok(Quantity::new(*whole.inner(), Format::DecimalSi));
    }
    let wrong = || ExecutionError::function_error("quantity", "takes a quantity");
    value.downcast_ref::<Amount>().map(|a| a.0).ok_or_else(wrong)
}

fn quantity<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let parsed = Quantity::parse(text(args[0].as_ref(), "quantity")?);
    let parsed = parsed.map_err(|e| ExecutionError::function_error("quantity", e.to_string()))?;
    Ok(CowVal::owned(Amount(parsed)))
}

fn is_quantity<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    truth(Quantity::parse(text(args[0].as_ref(), "isQuantity")?).is_ok())
}

fn truth<'b, 'v>(is: bool) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(is)))
}

fn is_less<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    truth(amount(&args, 0)? < amount(&args, 1)?)
}

fn is_greater<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    truth(amount(&args, 0)? > amount(&args, 1)?)
}

fn compare_to<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let order = amount(&args, 0)?.cmp(&amount(&args, 1)?);
    Ok(CowVal::owned(CelInt::from(order as i64)))
}

fn add<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(Amount(amount(&args, 0)? + amount(&args, 1)?)))
}

fn sub<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(Amount(amount(&args, 0)? - amount(&args, 1)?)))
}

fn sign<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let amount = amount(&args, 0)?;
    let sign = if amount.is_zero() {
        0
    } else if amount.is_negative() {
        -1
    } else {
        1
    };
    Ok(CowVal::owned(CelInt::from(sign)))
}

fn is_integer<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let amount = amount(&args, 0)?;
    truth(Quantity::new(amount.value(), amount.format()) == amount)
}

fn as_integer<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let amount = amount(&args, 0)?;
    if Quantity::new(amount.value(), amount.format()) != amount {
        return Err(ExecutionError::function_error("asInteger", "cannot convert value to integer"));
    }
    Ok(CowVal::owned(CelInt::from(amount.value())))
}

fn as_float<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelDouble::from(amount(&args, 0)?.milli_value() as f64 / 1000.0)))
}
