use std::sync::{Arc, mpsc};

use mainstay_core::Instant;
use mainstay_resilience::Outcome;
use mainstay_resilience::circuit::{
    AgedTally, Cause, Circuit, CircuitPolicy, OpenLeft, RawCircuit, Reason, State,
};
use mainstay_resilience::window::Tally;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn key(subject: &str) -> CircuitKey {
    CircuitKey { policy: "default".into(), subject: subject.into() }
}

fn blank() -> Snapshot {
    let (mode, window) = (Mode::Auto, Vec::new());
    Snapshot { mode, mode_left: None, open: None, openings: 0, opened_total: 0, window }
}

fn forced() -> Snapshot {
    Snapshot { mode: Mode::ForcedOpen, ..blank() }
}

/// A circuit that the given number of failures opened.
fn opened(opened_total: u64) -> Snapshot {
    let cause = Cause { reason: Reason::FailureRate, observed: 62.5, threshold: 50.0 };
    let open = Some(OpenLeft { left: SECOND * 4, cooldown: SECOND * 5, cause });
    let tally = Tally { calls: 8, failures: 5, latency_nanos: 1 << 40, ..Tally::default() };
    let window = vec![AgedTally { age: SECOND, tally }];
    Snapshot { mode: Mode::Auto, mode_left: None, open, openings: 1, opened_total, window }
}

fn calls(seconds: u64, circuits: &[(&str, Snapshot)]) -> Calls {
    let circuits = circuits.iter().map(|(subject, snapshot)| (key(subject), snapshot.clone()));
    Calls::new(at(seconds), Saved { circuits: circuits.collect(), ..Saved::default() })
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_circuit_opens_again_after_a_restart_for_what_is_left_of_its_cooldown() {
    let folder = folder();
    let policy: CircuitPolicy = RawCircuit::default().try_into().expect("defaults");
    let policy = Arc::new(policy);
    let mut circuit = Circuit::new(Arc::clone(&policy), 1, Instant::ZERO);
    let mut now = Instant::ZERO;
    while circuit.view(now).state == State::Closed {
        now = now.plus(Duration::from_millis(10));
        let permit = circuit.admit(now).expect("closed");
        let _opened = circuit.record(now, permit, Outcome::Failure, SECOND);
    }
    let file = SnapshotFile::new(folder.path());
    assert!(file.read(at(0)).expect("no file is no fault").is_none());
    let taken = (key("order@10.0.0.7:8080"), circuit.snapshot(now));
    let circuits = vec![taken, (key("quiet"), blank())];
    let saved = Saved { circuits, ..Saved::default() };
    file.write(&Calls::new(at(0), saved)).expect("written");

    let (kept, age) = file.read(at(2)).expect("a good file").expect("a file");
    assert_eq!(
        (kept.saved.circuits.len(), age),
        (1, SECOND * 2),
        "one that knows nothing is not kept"
    );
    let mut again = Circuit::new(policy, 1, Instant::ZERO);
    let _opened = again.restore(Instant::ZERO, &kept.saved.circuits[0].1, age);
    assert_eq!(again.view(Instant::ZERO).state, State::Open);
    let was = circuit.view(now).next_change.expect("it is open").since(now);
    let is = again.view(Instant::ZERO).next_change.expect("it is open").since(Instant::ZERO);
    assert_eq!(is + age, was);
}

#[test]
fn killed_between_any_two_steps_it_leaves_the_old_file_or_the_new() {
    let folder = folder();
    let file = SnapshotFile::new(folder.path());
    let (old, new) = (calls(0, &[("a", forced())]), calls(1, &[("b", opened(1))]));
    let there = || file.read(at(1)).expect("never damaged").map(|(calls, _)| calls);
    file.write(&old).expect("written");
    let bytes = new.encode();
    for written in 0..=bytes.len() {
        fs::write(&file.beside, &bytes[..written]).expect("half a file beside");
        assert_eq!(there().as_ref(), Some(&old), "killed after {written} bytes");
    }
    file.put_beside(&bytes).expect("written over what was left behind");
    assert_eq!(there(), Some(old));
    file.replace().expect("renamed");
    assert_eq!(there(), Some(new));
    assert!(!file.beside.exists());
    // Left behind before the very first file.
    fs::remove_file(&file.path).expect("removed");
    file.put_beside(&bytes).expect("written");
    assert_eq!(there(), None);
}

/// Checks why the bytes made by `spoil` of a good file of `at(0)` are ignored at `now`.
#[track_caller]
fn check(now: u64, spoil: impl FnOnce(String) -> String, want: &str) {
    let folder = folder();
    let file = SnapshotFile::new(folder.path());
    let good = calls(1_000, &[("a", opened(1))]).encode();
    fs::write(&file.path, spoil(String::from_utf8(good).expect("JSON"))).expect("written");
    let said = match file.read(at(now)) {
        Ok(Some((_, age))) => format!("{} s", age.as_secs()),
        Ok(None) => "none".to_owned(),
        Err(ignored) => ignored.to_string(),
    };
    assert_eq!(said, want);
}

#[test]
fn what_is_old_or_damaged_is_ignored_and_says_why() {
    let as_it_is = |text| text;
    check(1_000, as_it_is, "0 s");
    check(1_300, as_it_is, "300 s");
    check(1_301, as_it_is, "calls snapshot is 301 s old, more than 300");
    check(990, as_it_is, "0 s");
    check(600, as_it_is, "calls snapshot is from 400 s in the future");
    check(1_000, |_| String::new(), "calls snapshot is damaged: no head");
    check(
        1_000,
        |text| text.replace("calls", "balls"),
        "calls snapshot is damaged: of another format",
    );
    check(
        1_000,
        |text| text.replace("\"version\":2", "\"version\":9"),
        "calls snapshot is of version 9, not 2",
    );
    check(
        1_000,
        |text| text.replace("\"failures\":5", "\"failures\":6"),
        "calls snapshot is damaged: checksum differs",
    );
    check(
        1_000,
        |mut text| {
            text.truncate(text.len() - 9);
            text
        },
        "calls snapshot is damaged: checksum differs",
    );
    check(
        1_000,
        |text| {
            let head = text.lines().next().expect("a head");
            let sum = head.split('"').rev().nth(1).expect("a checksum");
            format!("{}\n{{}}\n", head.replace(sum, &format!("{:016x}", xxh64(b"{}", 0))))
        },
        "calls snapshot is damaged: not what is kept of calls",
    );
}

#[test]
fn a_figure_json_cannot_write_costs_the_figure_only() {
    let mut odd = opened(1);
    odd.open.as_mut().expect("open").cause.observed = f64::INFINITY;
    let read = Calls::decode(&calls(0, &[("a", odd)]).encode()).expect("readable");
    let cause = read.saved.circuits[0].1.open.expect("open").cause;
    assert_eq!((cause.observed.to_bits(), cause.threshold.to_bits()), (0, 50.0f64.to_bits()));
}

#[test]
fn only_news_is_written_and_the_stamp_never_grows_old() {
    let folder = folder();
    let keeper = Keeper::new(SnapshotFile::new(folder.path()));
    let look = |seconds, circuits: &[_]| keeper.look(&calls(seconds, circuits)).expect("written");
    assert_eq!(keeper.age(at(0)), None);
    assert!(look(0, &[]), "what an earlier process left is replaced");
    assert!(!look(1, &[]));
    assert!(!look(400, &[]), "nothing stays nothing, however long");
    assert!(look(401, &[("a", opened(1))]));
    let aged = |mut snapshot: Snapshot| {
        snapshot.open.as_mut().expect("open").left = SECOND * 3;
        snapshot.window[0].age = SECOND * 2;
        snapshot
    };
    assert!(!look(402, &[("a", aged(opened(1)))]), "time alone is no news");
    assert!(look(403, &[("a", opened(2))]));
    assert!(look(404, &[("a", opened(2)), ("b", forced())]));
    assert!(!look(463, &[("b", forced()), ("a", opened(2))]), "nor is the order");
    assert!(look(464, &[("a", opened(2)), ("b", forced())]), "the stamp is renewed in time");
    assert_eq!(keeper.age(at(470)), Some(SECOND * 6));
    keeper.note_change();
    assert!(look(465, &[("a", opened(2)), ("b", forced())]), "told of a change");
    assert!(look(466, &[]), "that nothing is left is news");
    assert!(look(100, &[("a", opened(1))]) && look(50, &[("a", opened(1))]), "a clock set back");
}

#[test]
fn a_disk_that_fails_is_told_of_and_tried_again() {
    let folder = folder();
    let data_dir = folder.path().join("later");
    let keeper = Keeper::new(SnapshotFile::new(&data_dir));
    let news = calls(0, &[("a", forced())]);
    assert!(keeper.look(&news).is_err());
    assert_eq!(keeper.age(at(0)), None);
    fs::create_dir(&data_dir).expect("made");
    assert!(keeper.look(&news).expect("written"));
}

#[test]
fn the_last_look_is_after_the_order_to_stop() {
    let folder = folder();
    let file = SnapshotFile::new(folder.path());
    let keeper = Keeper::new(file.clone());
    let (stop, stopped) = mpsc::channel();
    drop(stop);
    keeper.run(&stopped, || calls(0, &[("a", forced())]), |error| panic!("{error}"));
    assert_eq!(file.read(at(0)).expect("good").expect("there").0, calls(0, &[("a", forced())]));
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let modes = [Mode::Auto, Mode::ForcedOpen, Mode::ForcedClosed, Mode::Disabled, Mode::Observe];
    let span = || (0u64..1 << 50).prop_map(Duration::from_nanos);
    let open = (span(), span(), 0u16..999).prop_map(|(left, cooldown, observed)| {
        let (observed, threshold) = (f64::from(observed) / 8.0, 50.0);
        OpenLeft { left, cooldown, cause: Cause { reason: Reason::SlowRate, observed, threshold } }
    });
    let tally = (span(), any::<[u64; 5]>(), any::<u64>()).prop_map(|(age, n, nanos)| {
        let [calls, failures, slow, timeouts, refusals] = n;
        let latency_nanos = u128::from(nanos);
        AgedTally { age, tally: Tally { calls, failures, slow, timeouts, refusals, latency_nanos } }
    });
    (
        prop::sample::select(modes.to_vec()),
        prop::option::of(span()),
        prop::option::of(open),
        any::<(u32, u64)>(),
        prop::collection::vec(tally, 0..4),
    )
        .prop_map(|(mode, mode_left, open, (openings, opened_total), window)| Snapshot {
            mode,
            mode_left,
            open,
            openings,
            opened_total,
            window,
        })
}

proptest! {
    /// What is written is what is read, and a single wrong byte is found out.
    #[test]
    fn a_file_says_what_was_meant_or_nothing(
        circuits in prop::collection::btree_map("[a-z\"\\\\\n@:0-9é]{0,12}", snapshots(), 0..4),
        place: prop::sample::Index,
        flip in 1u8..=255,
    ) {
        let circuits = circuits.into_iter().map(|(subject, snapshot)| (key(&subject), snapshot));
        let saved = Saved { circuits: circuits.collect(), ..Saved::default() };
        let meant = Calls::new(at(7), saved);
        let mut bytes = meant.encode();
        prop_assert_eq!(&Calls::decode(&bytes).unwrap(), &meant);
        let rows = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        // After the head, which has no checksum but is small and read strictly.
        let place = rows + place.index(bytes.len() - 1 - rows);
        bytes[place] ^= flip;
        prop_assert!(matches!(Calls::decode(&bytes), Err(Ignored::Damaged(_))));
    }
}
