//! Events, in both of their groups.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{UNKNOWN, columns, name, row, since};
use crate::kind::{Cell, Column};

pub(crate) fn columns() -> Vec<Column> {
    let mut columns = columns![
        "Last Seen" "How long ago it happened last.",
        "Type" "Whether it is normal.",
        "Reason" "What happened, in one word.",
        "Object" "What it happened to.",
        "Subobject" "To which part of it.": wide,
        "Source" "Who noticed.": wide,
        "Message" "What happened.",
        "First Seen" "How long ago it happened first.": wide,
        "Count" "How often it happened.": wide,
        "Name" "The name of the event.": wide,
    ];
    // Here the name comes last.
    columns.remove(0);
    columns[8] = columns[8].clone().integer();
    columns[9].format = "name".into();
    columns
}

pub(crate) fn row(event: &Event, now: Timestamp) -> Vec<Cell> {
    Parts {
        type_: &event.type_,
        reason: &event.reason,
        object: &event.involved_object,
        source: event.source.as_ref(),
        controller: &event.reporting_component,
        instance: &event.reporting_instance,
        message: &event.message,
        first: event.first_timestamp.as_ref(),
        last: event.last_timestamp.as_ref(),
        at: event.event_time.as_ref(),
        series: event.series.as_ref().map(|s| (s.last_observed_time.as_ref(), s.count.unwrap_or(0))),
        count: event.count,
        name: name(&event.metadata),
    }
    .row(now)
}

pub(crate) fn new_row(event: &NewEvent, now: Timestamp) -> Vec<Cell> {
    let nothing = ObjectReference::default();
    Parts {
        type_: &event.type_,
        reason: &event.reason,
        object: event.regarding.as_ref().unwrap_or(&nothing),
        source: event.deprecated_source.as_ref(),
        controller: &event.reporting_controller,
        instance: &event.reporting_instance,
        message: &event.note,
        first: event.deprecated_first_timestamp.as_ref(),
        last: event.deprecated_last_timestamp.as_ref(),
        at: event.event_time.as_ref(),
        series: event.series.as_ref().map(|s| (Some(&s.last_observed_time), s.count)),
        count: event.deprecated_count,
        name: name(&event.metadata),
    }
    .row(now)
}

/// What the two types have in common.
struct Parts<'a> {
    type_: &'a Option<String>,
    reason: &'a Option<String>,
    object: &'a ObjectReference,
    source: Option<&'a EventSource>,
    controller: &'a Option<String>,
    instance: &'a Option<String>,
    message: &'a Option<String>,
    first: Option<&'a Time>,
    last: Option<&'a Time>,
    at: Option<&'a MicroTime>,
    series: Option<(Option<&'a MicroTime>, i32)>,
    count: Option<i32>,
    name: String,
}

impl Parts<'_> {
    fn row(self, now: Timestamp) -> Vec<Cell> {
        let micro = |time: Option<&MicroTime>| match time {
            Some(time) => since(Some(&Time(time.0)), now),
            None => UNKNOWN.to_owned(),
        };
        let first = self.first.map_or_else(|| micro(self.at), |t| since(Some(t), now));
        let (last, count) = match self.series {
            Some((last, count)) => (micro(last), count),
            None => {
                let last = self.last.map_or_else(|| first.clone(), |t| since(Some(t), now));
                (last, self.count.filter(|&c| c != 0).unwrap_or(1))
            }
        };
        let kind = self.object.kind.as_deref().unwrap_or_default().to_lowercase();
        let object = match self.object.name.as_deref().unwrap_or_default() {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let given = |field: &Option<String>| field.clone().filter(|f| !f.is_empty());
        let component = self.source.and_then(|s| given(&s.component)).or_else(|| given(self.controller));
        let host = self.source.and_then(|s| given(&s.host)).or_else(|| given(self.instance));
        let source = [component, host].into_iter().flatten().collect::<Vec<_>>().join(", ");
        row![
            last,
            self.type_.clone().unwrap_or_default(),
            self.reason.clone().unwrap_or_default(),
            object,
            self.object.field_path.clone().unwrap_or_default(),
            source,
            self.message.as_deref().unwrap_or_default().trim(),
            first,
            count,
            self.name,
        ]
    }
}
