//! Kubernetes types and the rules that belong to them: the registry of kinds, defaulting, validation with field
//! paths, selectors, quantities, patches, table columns and manifests.
//!
//! Nothing here is async and nothing here does IO: the same bytes in give the same answer out, which is why the API
//! server, the command line and a test can all lean on it.
//!
//! Built-in kinds are the structs of [`k8s_openapi`]; the kinds of group `minik8s.io` are ordinary custom resources.
//! [`Kind`] describes one of them to a server that does not know its type, and [`Registry`] finds it by path or name.

pub mod cidr;
pub mod conversion;
pub mod crd;
pub mod default;
pub mod field;
pub mod kind;
mod kinds;
pub mod manifest;
pub mod meta;
pub mod minik8s_io;
pub mod name;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod registry;
pub mod scale;
pub mod selector;
mod table;
pub mod unstructured;
pub mod validate;

pub use cidr::Cidr;
pub use field::{FieldError, FieldErrors, FieldPath};
pub use kind::{Cell, Column, Kind, KindBuilder};
pub use object::{DecodeError, Decoded, Object, Resource};
pub use quantity::{Quantity, QuantityError};
pub use registry::Registry;
pub use selector::{FieldSelector, Selector, SelectorError};
pub use unstructured::Unstructured;
