//! The OpenAPI version 2 document as protobuf: the messages of `openapi.v2` of google/gnostic, as far as our document
//! goes. A `oneof` is written as optional fields of which one is set; on the wire that is the same.

use prost::Message;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// `Definitions` and `Properties`.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    variants: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    type_: Option<Strings>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, repeated, tag = "24")]
    all_of: Vec<Schema>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
    #[prost(bool, optional, tag = "2")]
    boolean: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "1")]
    body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    other: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    in_: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    in_: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    type_: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    in_: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    type_: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    codes: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

/// The bytes of a version 2 document that is given as JSON.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    Document {
        swagger: text(&document["swagger"]),
        info: Some(Info {
            title: text(&document["info"]["title"]),
            version: text(&document["info"]["version"]),
        }),
        paths: Some(Paths {
            path: entries(&document["paths"], |name, value| NamedPathItem {
                name,
                value: Some(path_item(value)),
            }),
        }),
        definitions: Some(schemas(&document["definitions"])),
    }
    .encode_to_vec()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn any(value: &Value) -> Any {
    // JSON is YAML.
    Any { yaml: value.to_string() }
}

fn entries<T>(value: &Value, each: impl Fn(String, &Value) -> T) -> Vec<T> {
    value.as_object().into_iter().flatten().map(|(name, value)| each(name.clone(), value)).collect()
}

fn schemas(value: &Value) -> Schemas {
    Schemas { entries: entries(value, |name, value| NamedSchema { name, value: Some(schema(value)) }) }
}

fn extensions(fields: &Object) -> Vec<NamedAny> {
    fields
        .iter()
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| NamedAny { name: name.clone(), value: Some(any(value)) })
        .collect()
}

fn schema(value: &Value) -> Schema {
    let additional = value.get("additionalProperties").map(|a| {
        Box::new(match a {
            Value::Bool(b) => AdditionalProperties { schema: None, boolean: Some(*b) },
            other => AdditionalProperties { schema: Some(Box::new(schema(other))), boolean: None },
        })
    });
    Schema {
        reference: text(&value["$ref"]),
        format: text(&value["format"]),
        description: text(&value["description"]),
        default: value.get("default").map(any),
        required: texts(&value["required"]),
        variants: value["enum"].as_array().into_iter().flatten().map(any).collect(),
        additional_properties: additional,
        type_: value["type"].as_str().map(|t| Strings { value: vec![t.to_owned()] }),
        items: value.get("items").map(|i| Items { schema: vec![schema(i)] }),
        all_of: value["allOf"].as_array().into_iter().flatten().map(schema).collect(),
        properties: value.get("properties").map(schemas),
        extensions: value.as_object().map(extensions).unwrap_or_default(),
    }
}

fn path_item(value: &Value) -> PathItem {
    let operation = |method: &str| value.get(method).map(operation);
    PathItem {
        get: operation("get"),
        put: operation("put"),
        post: operation("post"),
        delete: operation("delete"),
        patch: operation("patch"),
        parameters: parameters(&value["parameters"]),
    }
}

fn operation(value: &Value) -> Operation {
    let responses = entries(&value["responses"], |name, value| {
        let schema = value.get("schema").map(|s| SchemaItem { schema: Some(schema(s)) });
        let response = Response { description: text(&value["description"]), schema };
        NamedResponse { name, value: Some(ResponseValue { response: Some(response) }) }
    });
    Operation {
        operation_id: text(&value["operationId"]),
        produces: texts(&value["produces"]),
        consumes: texts(&value["consumes"]),
        parameters: parameters(&value["parameters"]),
        responses: Some(Responses { codes: responses }),
        extensions: value.as_object().map(extensions).unwrap_or_default(),
    }
}

fn parameters(value: &Value) -> Vec<ParametersItem> {
    let parameter = |value: &Value| {
        let (name, in_) = (text(&value["name"]), text(&value["in"]));
        let (description, type_) = (text(&value["description"]), text(&value["type"]));
        let required = value["required"] == true;
        let unique_items = value["uniqueItems"] == true;
        let non_body = |query, path| Parameter { body: None, other: Some(NonBodyParameter { query, path }) };
        match in_.as_str() {
            "body" => {
                let schema = value.get("schema").map(schema);
                Parameter { body: Some(BodyParameter { name, in_, required, schema }), other: None }
            }
            "path" => {
                let path = PathParameter { required, in_, description, name, type_, unique_items };
                non_body(None, Some(path))
            }
            _ => {
                let query = QueryParameter { required, in_, description, name, type_, unique_items };
                non_body(Some(query), None)
            }
        }
    };
    let list = value.as_array().into_iter().flatten();
    list.map(|v| ParametersItem { parameter: Some(parameter(v)) }).collect()
}
