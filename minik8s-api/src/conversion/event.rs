//! `events.k8s.io/v1` and the core group's events: the same objects in other words.

use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSeries as CoreSeries};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The event in the words of the core group.
pub(crate) fn to_core(event: &Event) -> CoreEvent {
    let event = event.clone();
    CoreEvent {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event
            .series
            .map(|s| CoreSeries { count: Some(s.count), last_observed_time: Some(s.last_observed_time) }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

/// The event in the words of its own group.
pub(crate) fn from_core(event: &CoreEvent) -> Event {
    let event = event.clone();
    Event {
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        metadata: event.metadata,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|s| EventSeries {
            count: s.count.unwrap_or(0),
            last_observed_time: s
                .last_observed_time
                .unwrap_or(MicroTime(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
        }),
        type_: event.type_,
    }
}
