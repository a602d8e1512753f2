//! One instance of a service, for one call.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use mainstay_api::registry::ServiceView;
use mainstay_call::draw;
use mainstay_call::resolve::Instance;
use mainstay_core::Effect;
use mainstay_core::problem::Code;
use mainstay_resilience::balance::{Count, Spread};

use super::following;
use crate::client::Shared;
use crate::control::{Call, segment};
use crate::error::ClientError;
use crate::pause::pause;
use crate::problem::problem;

/// For the answer to one try.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a server is asked before it is given up.
const TRIES: u32 = 4;

/// As a balancer has it that is not told otherwise.
const OVERPROVISION_PERCENT: u32 = 140;

/// `host:port` of an instance of `service`, each with its share of the calls.
///
/// # Errors
///
/// [`ClientError`]: no server answered, or nobody can take a call.
pub(crate) async fn pick(shared: &Shared, service: &str) -> Result<String, ClientError> {
    let namespace = segment(&shared.namespace);
    let path = format!("/registry/{namespace}/services/{}", segment(service));
    let call = Call::new(Method::GET, path, ANSWER_TIMEOUT);
    let mut tries = 0;
    let view: ServiceView = loop {
        tries += 1;
        match shared.control.ask(&call).await {
            Err(error) if error.is_passing() && tries < TRIES => {
                pause(tries, error.retry_after()).await;
            }
            // The registry has never heard of it.
            Err(ClientError::Refused(refused)) if refused.status == 404 => {
                return Err(nobody(service));
            }
            answer => break answer?,
        }
    };
    let listed: Vec<Instance> = view.instances.iter().map(following::instance).collect();
    let chosen = choose(&listed, [draw::next(), draw::next()]);
    chosen.map(|one| one.address.to_string()).ok_or_else(|| nobody(service))
}

/// One of `listed` by two numbers drawn at random: its level, then the instance.
///
/// Levels are as gateways and [`Calls`](mainstay_call::Calls) have them: the lowest `priority` takes
/// all calls until too few of its instances are left to carry them.
fn choose(listed: &[Instance], draws: [u64; 2]) -> Option<&Instance> {
    let mut levels: BTreeMap<u32, (Count, Vec<&Instance>)> = BTreeMap::new();
    for one in listed {
        let (count, usable) = levels.entry(one.priority).or_default();
        count.total += 1;
        if one.usable && 0 < one.weight {
            count.usable += 1;
            usable.push(one);
        }
    }
    let counts: Vec<Count> = levels.values().map(|(count, _)| *count).collect();
    let load = Spread::over(&counts, OVERPROVISION_PERCENT).load;
    let mut place = draws[0] % 100;
    let fallen = levels.values().zip(load).find(|(_, load)| {
        let load = u64::from(*load);
        let is_here = place < load;
        place = place.saturating_sub(load);
        is_here
    });
    let fallen = fallen.map(|((_, usable), _)| usable).filter(|usable| !usable.is_empty());
    // So few are left that rounding gave the load to a level that has none.
    let any = || levels.values().map(|(_, usable)| usable).find(|usable| !usable.is_empty());
    let usable = fallen.or_else(any)?;
    let all: u64 = usable.iter().map(|one| u64::from(one.weight)).sum();
    let mut place = draws[1].checked_rem(all)?;
    usable.iter().copied().find(|one| match place.checked_sub(u64::from(one.weight)) {
        Some(left) => {
            place = left;
            false
        }
        None => true,
    })
}

fn nobody(service: &str) -> ClientError {
    let detail = format!("no instance of `{service}` takes calls");
    ClientError::Refused(Box::new(problem(Code::NoInstance, detail, Some(Effect::None))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Instances told as `name priority weight`, `-name …` one that cannot be used; and how many of
    /// 1,000 calls each gets.
    #[track_caller]
    fn check(told: &[&str], want: &[(&str, u32)]) {
        let one = |text: &&str| {
            let parts: Vec<&str> = text.split(' ').collect();
            let number = |at: usize| parts[at].parse().unwrap();
            Instance {
                name: Arc::from(parts[0]),
                address: Arc::from(parts[0]),
                weight: number(2),
                zone: Arc::from(""),
                priority: number(1),
                usable: !parts[0].starts_with('-'),
            }
        };
        let listed: Vec<Instance> = told.iter().map(one).collect();
        let mut calls: BTreeMap<&str, u32> = BTreeMap::new();
        for level in 0..100 {
            for instance in 0..10 {
                if let Some(one) = choose(&listed, [level, instance]) {
                    *calls.entry(&one.name).or_default() += 1;
                }
            }
        }
        let want: BTreeMap<&str, u32> = want.iter().copied().collect();
        assert_eq!(calls, want, "{told:?}");
    }

    #[test]
    fn the_lowest_priority_takes_all_calls_while_it_can() {
        check(&["a 0 4", "b 0 1", "c 1 5"], &[("a", 800), ("b", 200)]);
        check(&["a 1 1", "b 2 1"], &[("a", 1_000)]);
    }

    #[test]
    fn the_next_one_takes_what_those_that_are_left_cannot_carry() {
        check(&["a 0 1", "-b 0 1", "c 1 1"], &[("a", 700), ("c", 300)]);
        check(&["-a 0 1", "c 1 1", "d 7 1"], &[("c", 1_000)]);
        check(&["a 0 0", "c 1 1"], &[("c", 1_000)]);
    }

    #[test]
    fn one_that_is_left_is_found_wherever_it_is() {
        let mut told = vec!["-x 0 1"; 200];
        told.push("a 1 1");
        check(&told, &[("a", 1_000)]);
        told.extend(vec!["-y 1 1"; 200]);
        check(&told, &[("a", 1_000)]);
        check(&["-a 0 1", "b 0 0"], &[]);
        check(&[], &[]);
    }
}
