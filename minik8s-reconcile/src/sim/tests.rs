//! The simulator is deterministic, finds nothing where nothing is wrong, and finds what was planted.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Faults, Simulation};
use crate::reconciler::{Action, Result, reconcile_fn};
use crate::{Controller, Cx};

fn named(name: &str) -> ConfigMap {
    let mut config = ConfigMap::default();
    config.metadata.name = Some(name.to_owned());
    config
}

/// Counts the writes of each ConfigMap, in it: something is always under way.
fn counting(name: &str) -> Simulation {
    let count = |config: Arc<ConfigMap>, cx: Cx| async move {
        let mut config = (*config).clone();
        let data = config.data.get_or_insert_default();
        let count = data.get("count").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        if count < 20 {
            data.insert("count".to_owned(), (count + 1).to_string());
            cx.client().namespaced::<ConfigMap>("default").update(&config).await?;
        }
        Ok(Action::Done)
    };
    Simulation::new(name)
        .nodes(2)
        .program("counting", move |process| {
            process.manager().controller(Controller::new("counting", reconcile_fn(count))).run(process.stop)
        })
        .workload(|world| async move {
            for n in 0..5 {
                tokio::time::sleep(Duration::from_millis(world.rng().below(20_000))).await;
                world
                    .client()
                    .namespaced("default")
                    .create(&named(&format!("c{n}")))
                    .await
                    .expect("names are new");
            }
        })
        .finally("all have been counted up", |state| {
            let done = |c: &&Arc<ConfigMap>| {
                c.data.as_ref().is_some_and(|d| d.get("count").is_some_and(|n| n == "20"))
            };
            match state.all::<ConfigMap>().iter().filter(done).count() {
                5 => Ok(()),
                n => Err(format!("{n} have")),
            }
        })
}

#[test]
fn a_quiet_day_is_quiet() {
    let run = counting("a_quiet_day_is_quiet").faults(Faults::none()).run(1);
    assert_eq!(run.violation, None, "{}", run.tail.join("\n"));
    assert_eq!(run.faults, 0);
}

#[test]
fn a_seed_is_a_history() {
    let simulation = counting("a_seed_is_a_history");
    let (one, again, other) = (simulation.run(7), simulation.run(7), simulation.run(8));
    assert_eq!(one.fingerprint, again.fingerprint);
    assert_ne!(one.fingerprint, other.fingerprint);
    assert!(one.faults > 0);
}

#[test]
fn a_correct_controller_passes() {
    let summary = counting("a_correct_controller_passes").check(0..20);
    assert!(summary.distinct > summary.seeds / 2, "{summary}");
}

/// Makes a twin of each ConfigMap that is none itself; a bug by choice.
fn twins(bug: fn(Arc<ConfigMap>, Cx) -> futures::future::BoxFuture<'static, Result<Action>>) -> Simulation {
    Simulation::new("twins")
        .program("twins", move |process| {
            let controller = Controller::new("twins", reconcile_fn(bug));
            process.manager().controller(controller).run(process.stop)
        })
        .workload(|world| async move {
            world.client().namespaced("default").create(&named("one")).await.expect("nobody else makes it");
        })
        .finally("there are two", |state| match state.all::<ConfigMap>().len() {
            2 => Ok(()),
            n => Err(format!("there are {n}")),
        })
}

#[test]
fn what_is_written_again_and_again_is_found() {
    let hot = twins(|config, cx| {
        Box::pin(async move {
            let mut config = (*config).clone();
            let now = cx.now().to_string();
            config.data.get_or_insert_default().insert("seen".to_owned(), now);
            cx.client().namespaced::<ConfigMap>("default").update(&config).await?;
            Ok(Action::RequeueAfter(Duration::from_secs(60)))
        })
    });
    let (_, violation) = hot.seeds_until_violation(0..1).expect("it never rests");
    assert_eq!(violation.property, "it comes to rest");
}
