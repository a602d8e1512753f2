//! How a transaction comes into being.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Step, Submit};
use crate::error::Refused;
use crate::limits::{
    BRANCHES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, HEADS_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX,
    NAME_BYTES_MAX, PATIENCE_MAX, TRANSACTION_BYTES_MAX, WORDS_BYTES_MAX,
};
use crate::moment::Moment;
use crate::name::{BranchId, ResourceName};
use crate::policy::Policy;
use crate::transaction::{Begin, Branch, NewBranch, Part, Payload, Transaction};
use crate::word::{Decision, Dialect, Mode, Op, Prepare, Why};

impl Transaction {
    /// Begins one that is not there. What is submitted with its beginning is decided at once, by
    /// the same record.
    ///
    /// # Errors
    ///
    /// [`Refused`] when `begin` says what it may not.
    pub fn begin(begin: Begin, now: Moment, policy: &Policy) -> Result<(Self, Step), Refused> {
        let (begin, deadline) = resolved(begin, policy)?;
        let decides = begin.submit;
        let is_native = begin.mode == Mode::Xa && begin.dialect == Dialect::Native;
        let is_lazy = is_native && !begin.ordered;
        let mut transaction = Self::new(begin, now, deadline);
        let mut step = Step::default();
        transaction.note(now, "begun", "initiator");
        (step.write.body, step.write.register) = (true, true);
        // Of a two-phase commit of ours the submit says all that the begin did, but for an order;
        // everybody else is told only of what can be found again.
        step.write.durable = !is_lazy;
        if decides {
            transaction.decide(Decision::Commit, None, now, &mut step);
        }
        transaction.drive(now, &mut step);
        Ok((transaction, step))
    }

    /// Takes the submit of a two-phase commit whose lazy begin a failover has lost. Nobody else
    /// can have decided it: it has no record, and its deadline has not passed.
    ///
    /// # Errors
    ///
    /// [`Refused::TooOld`] when that cannot be known; what [`Event::Submit`](super::Event::Submit)
    /// is refused for.
    pub fn submit_lost(
        begin: Begin,
        (begun_at, deadline_at): (Moment, Moment),
        submit: Submit,
        now: Moment,
        policy: &Policy,
    ) -> Result<(Self, Step), Refused> {
        if begin.mode != Mode::Xa || begin.dialect != Dialect::Native {
            return Err(Refused::Aborted(None));
        }
        let lived = now.since(begun_at);
        if deadline_at <= now || policy.lifetime_max < lived || now < begun_at {
            return Err(Refused::TooOld);
        }
        let (mut transaction, _) = Self::begin(begin, begun_at, policy)?;
        transaction.deadline_at = Some(deadline_at);
        let mut step = transaction.step(super::Event::Submit(submit), now, policy)?;
        (step.write.body, step.write.register) = (true, true);
        Ok((transaction, step))
    }

    /// Whether `begin` says what this one was begun with.
    ///
    /// # Errors
    ///
    /// [`Refused::GidTaken`] when it says something else; what [`Transaction::begin`] is refused
    /// for.
    pub fn repeats(&self, begin: Begin, policy: &Policy) -> Result<(), Refused> {
        let (begin, _) = resolved(begin, policy)?;
        if begin == *self.begin {
            return Ok(());
        }
        Err(Refused::GidTaken { mode: self.begin.mode, state: self.state() })
    }

    /// Takes up a branch that was found prepared and that no record speaks of: it was presumed
    /// aborted, and from now on it is.
    pub fn orphan(begin: Begin, found: (ResourceName, BranchId), now: Moment) -> (Self, Step) {
        let (resource, id) = found;
        let mut transaction = Self::new(begin, now, None);
        let new = NewBranch {
            branch: None,
            part: Part::Resource(resource),
            after: Vec::new(),
            payload: Payload::default(),
        };
        transaction.branches.push(Branch::new(id, new));
        let mut step = Step::default();
        (step.write.body, step.write.durable) = (true, true);
        step.write.branches.insert(0);
        transaction.decide_abort(Why::Orphan, "", now, &mut step);
        transaction.drive(now, &mut step);
        (transaction, step)
    }
}

/// `begin` with what it leaves open settled, and its deadline.
fn resolved(mut begin: Begin, policy: &Policy) -> Result<(Begin, Option<Duration>), Refused> {
    check_words(&begin)?;
    if begin.mode == Mode::Xa && begin.dialect == Dialect::Native {
        begin.gid.fits_xa()?;
    }
    let has_steps = matches!(begin.mode, Mode::Saga | Mode::Message);
    if has_steps == begin.steps.is_empty() {
        let problem = if has_steps { "must name at least one step" } else { "join by registering" };
        return Err(invalid("steps", problem));
    }
    match begin.mode {
        Mode::Saga if !begin.submit => return Err(invalid("submit", "must be true for a saga")),
        Mode::Xa | Mode::Tcc if begin.submit => {
            return Err(invalid("submit", "comes after the branches have joined"));
        }
        Mode::Message if begin.check.is_none() && !begin.submit => {
            return Err(invalid("check", "says whom to ask, unless it is submitted at once"));
        }
        _ => {}
    }
    if begin.give_up_after.is_some() && (begin.mode != Mode::Message || begin.steps.len() != 1) {
        return Err(invalid("give_up_after_seconds", "is for messages of one step"));
    }
    if let Some(check) = &begin.check {
        check.check()?;
    }
    let mut ids = BTreeSet::new();
    for (at, step) in begin.steps.iter_mut().enumerate() {
        let id = step.branch.get_or_insert_with(|| BranchId::number(at + 1)).clone();
        if !ids.insert(id.clone()) {
            return Err(Refused::BranchTaken { branch: id });
        }
        check_branch(begin.mode, begin.dialect, step, policy)?;
        if step.after.is_empty() && !begin.concurrent && at > 0 {
            step.after = u16::try_from(at - 1).into_iter().collect();
        }
    }
    let bodies = begin.steps.iter().map(|step| step.payload.bytes.len()).sum();
    let heads = begin.steps.iter().map(NewBranch::head_bytes).sum();
    check_size("steps", begin.steps.len(), (bodies, heads))?;
    check_order(&begin.steps)?;
    let deadline = deadline(&begin, policy)?;
    Ok((begin, deadline))
}

/// Whether a transaction of so many branches, bytes of bodies and of all else fits its records.
pub(super) fn check_size(
    branches: &'static str,
    count: usize,
    (bodies, heads): (usize, usize),
) -> Result<(), Refused> {
    let sizes = [
        (branches, count, BRANCHES_MAX),
        ("bytes of payload", bodies, TRANSACTION_BYTES_MAX),
        ("bytes of headers and targets", heads, HEADS_BYTES_MAX),
    ];
    match sizes.into_iter().find(|(_, found, max)| max < found) {
        Some((what, found, max)) => Err(Refused::TooLarge { what, found, max }),
        None => Ok(()),
    }
}

fn deadline(begin: &Begin, policy: &Policy) -> Result<Option<Duration>, Refused> {
    let patience =
        [("delay_seconds", Some(begin.delay)), ("give_up_after_seconds", begin.give_up_after)];
    for (field, span) in patience {
        if span.is_some_and(|span| PATIENCE_MAX < span) {
            return Err(invalid(field, "must be at most 30 days"));
        }
    }
    let asked = begin.deadline;
    let (default, max) = match begin.mode {
        Mode::Saga => (None, PATIENCE_MAX),
        Mode::Message if begin.submit => return Ok(None),
        _ => (Some(policy.deadline), policy.lifetime_max),
    };
    if asked.is_some_and(|asked| asked.is_zero() || max < asked) {
        let problem = format!("must be above 0 and at most {} s", max.as_secs());
        return Err(Refused::Invalid { field: "deadline_seconds", problem });
    }
    Ok(asked.or(default))
}

pub(super) fn check_words(begin: &Begin) -> Result<(), Refused> {
    let long = |text: &str, max: usize| max < text.len() || text.chars().any(char::is_control);
    if begin.name.as_ref().is_some_and(|name| long(name, NAME_BYTES_MAX)) {
        return Err(invalid("name", "must be at most 128 bytes without control characters"));
    }
    let is_wrong = |(label, value): (&String, &String)| {
        label.is_empty() || long(&format!("{label}{value}"), LABEL_BYTES_MAX)
    };
    if LABELS_MAX < begin.labels.len() || begin.labels.iter().any(is_wrong) {
        return Err(invalid("labels", "must be at most 16, each at most 256 bytes with its value"));
    }
    if begin.words.as_ref().is_some_and(|words| WORDS_BYTES_MAX < words.len()) {
        return Err(invalid("options", "must be at most 64 KiB"));
    }
    let size = begin.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    check_headers(&begin.headers, size)
}

/// Checks headers whose names and values, with what counts as them, have `size` bytes.
pub(super) fn check_headers(headers: &[(String, String)], size: usize) -> Result<(), Refused> {
    if HEADERS_MAX < headers.len() || HEADERS_BYTES_MAX < size {
        return Err(invalid("headers", "must be at most 32 with 8 KiB"));
    }
    let legal = |(name, value): &(String, String)| {
        name.parse::<http::HeaderName>().is_ok() && value.parse::<http::HeaderValue>().is_ok()
    };
    if !headers.iter().all(legal) {
        return Err(invalid("headers", "must be names and values of HTTP"));
    }
    Ok(())
}

/// Checks one branch by itself.
pub(super) fn check_branch(
    mode: Mode,
    dialect: Dialect,
    branch: &NewBranch,
    policy: &Policy,
) -> Result<(), Refused> {
    let Payload { bytes, headers, content_type } = &branch.payload;
    if policy.payload_bytes_max < bytes.len() {
        let branch = branch.branch.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let max = policy.payload_bytes_max;
        return Err(Refused::PayloadTooLarge { branch, bytes: bytes.len(), max });
    }
    check_headers(headers, branch.payload.head_bytes())?;
    if content_type.as_ref().is_some_and(|text| text.parse::<http::HeaderValue>().is_err()) {
        return Err(invalid("content_type", "must be a value of HTTP"));
    }
    let Part::Endpoint { targets, prepare } = &branch.part else {
        let fits = mode == Mode::Xa;
        return if fits { Ok(()) } else { Err(invalid("kind", "must be `endpoint` in this mode")) };
    };
    check_targets(mode, dialect, targets, *prepare)
}

/// Whether everybody is named who has to be. The DTM dialect takes nobody for an answer: done.
fn check_targets(
    mode: Mode,
    dialect: Dialect,
    targets: &BTreeMap<Op, crate::target::Target>,
    prepare: Prepare,
) -> Result<(), Refused> {
    let (required, optional): (&[Op], &[Op]) = match mode {
        Mode::Saga => (&[Op::Action], &[Op::Compensate]),
        Mode::Message => (&[Op::Action], &[]),
        Mode::Tcc => (&[Op::Confirm, Op::Cancel], &[Op::Try]),
        Mode::Xa => (&[Op::Commit, Op::Rollback], &[Op::Prepare]),
    };
    for (op, target) in targets {
        if !required.contains(op) && !optional.contains(op) {
            let problem = format!("has no `{op}` in a {mode} transaction");
            return Err(Refused::Invalid { field: "targets", problem });
        }
        target.check()?;
    }
    let missing = required.iter().find(|op| !targets.contains_key(op));
    let called = prepare == Prepare::Called && !targets.contains_key(&Op::Prepare);
    let missing = missing.filter(|_| dialect == Dialect::Native);
    if let Some(op) = missing.or_else(|| called.then_some(&Op::Prepare)) {
        let problem = format!("must name where to `{op}`");
        return Err(Refused::Invalid { field: "targets", problem });
    }
    if prepare == Prepare::Called && mode != Mode::Xa {
        return Err(invalid("prepare", "is for two-phase commits"));
    }
    Ok(())
}

/// Every step can have its turn: those it waits for exist, and wait for others than itself.
fn check_order(steps: &[NewBranch]) -> Result<(), Refused> {
    let count = steps.len();
    let outside = |step: &NewBranch| step.after.iter().any(|at| count <= usize::from(*at));
    if steps.iter().any(outside) {
        return Err(invalid("after", "must name steps by their place from 0"));
    }
    let mut done = vec![false; count];
    let mut left = count;
    loop {
        let before = left;
        for (at, step) in steps.iter().enumerate() {
            let is_done = |at: usize| done.get(at).copied().unwrap_or(false);
            if !is_done(at) && step.after.iter().all(|before| is_done(usize::from(*before))) {
                left -= 1;
                if let Some(done) = done.get_mut(at) {
                    *done = true;
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        if left == before {
            return Err(invalid("after", "goes in a circle"));
        }
    }
}

fn invalid(field: &'static str, problem: &str) -> Refused {
    Refused::Invalid { field, problem: problem.to_owned() }
}
