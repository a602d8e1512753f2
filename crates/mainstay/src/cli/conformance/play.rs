//! Plays cases to a participant, and notes what is seen.

use std::time::Duration;

use mainstay_call::draw;
use mainstay_txn::port::{Outgoing, To};
use mainstay_txn::{BranchId, Decision, Dialect, Gid, Mode, Op, Outcome, Payload, Target};

use super::database::Database;
use super::judge::{Answer, Case, Figure, Ops, Part, Seen};
use crate::cli::arguments::conformance::BarrierTable;
use crate::transaction::ByHand;

/// How often one that is still at it is asked again.
const TRIES: u32 = 20;

/// Before it is.
const PAUSE: Duration = Duration::from_millis(250);

/// How often work and undo are sent at the same time: which of them comes first is chance, and
/// eight tries see both nearly always.
const ROUNDS: u16 = 8;

/// Longest text of an answer that is shown, in characters.
const SHOWN_MAX: usize = 120;

/// Who is examined, and how.
pub(super) struct Subject {
    pub(super) ops: Ops,
    pub(super) dialect: Dialect,
    /// Where work, undo and confirm are called.
    pub(super) urls: [String; 3],
    pub(super) payload: Payload,
    /// What its business refuses.
    pub(super) refused: Option<Payload>,
    pub(super) timeout: Duration,
    pub(super) probe: Option<String>,
    pub(super) barrier: Option<BarrierTable>,
}

/// Calls a participant, and looks into its database.
pub(super) struct Player {
    caller: ByHand,
    subject: Subject,
    database: Option<Database>,
    /// Begins the gids of this examination, which are no other's.
    run: String,
    played: u32,
}

impl Player {
    pub(super) fn new(subject: Subject, database: Option<Database>) -> Self {
        let run = format!("conformance-{:016x}", draw::next());
        Self { caller: ByHand::new(), subject, database, run, played: 0 }
    }

    /// What all gids begin with.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// How often a case is worth playing.
    pub(super) const fn rounds(case: Case) -> u16 {
        if matches!(case, Case::AtOnce) { ROUNDS } else { 1 }
    }

    /// Plays a case for the `round`th time, from 0.
    pub(super) async fn play(&mut self, case: Case, round: u16) -> Result<Seen, String> {
        self.played = self.played.saturating_add(1);
        let gid = format!("{}-{}-{}", self.run, self.played, case.as_str());
        let gid = Gid::new(&gid).map_err(|error| error.to_string())?;
        let mut before = self.probe().await?;
        let answers = if case == Case::AtOnce {
            self.at_once(&gid, round.is_multiple_of(2)).await
        } else {
            let mut answers = Vec::new();
            for part in case.calls() {
                answers.push(self.call(&gid, *part, case.is_refused()).await);
                if case == Case::Hanging && answers.len() == 1 {
                    // What the undo did wrongly is another case, and would hide what comes now.
                    before = self.probe().await?;
                }
            }
            answers
        };
        let after = self.probe().await?;
        let change = before.zip(after).map(|(before, after)| after.minus(before));
        let rows = match (&mut self.database, self.subject.barrier) {
            (Some(database), Some(table)) => {
                let branch = BranchId::number(1);
                let rows = database.rows(table, (gid.as_str(), branch.as_str())).await;
                Some(rows.map_err(|why| format!("rows of the barrier cannot be read: {why}"))?)
            }
            _ => None,
        };
        if case.leaves_work() {
            // For the sake of who uses the database next; another case judges it.
            self.call(&gid, Part::Undo, false).await;
        }
        Ok(Seen { answers, change, rows })
    }

    async fn probe(&mut self) -> Result<Option<Figure>, String> {
        let (Some(database), Some(query)) = (&mut self.database, &self.subject.probe) else {
            return Ok(None);
        };
        let read = database.probe(query).await;
        read.map(Some).map_err(|why| format!("the probe cannot be read: {why}"))
    }

    /// Work and undo at the same time; the undo until it is done, as a coordinator does; then the
    /// work once more, as a call does that was held up.
    async fn at_once(&self, gid: &Gid, is_work_first: bool) -> Vec<Answer> {
        let work = self.send(gid, Part::Work, (1, false));
        let undo = self.send(gid, Part::Undo, (1, false));
        let (work, mut undone) = if is_work_first {
            tokio::join!(work, undo)
        } else {
            let (undone, work) = tokio::join!(undo, work);
            (work, undone)
        };
        let mut attempt = 2;
        while matches!(undone, Answer::Ongoing | Answer::Other(_)) && attempt <= TRIES {
            tokio::time::sleep(PAUSE).await;
            undone = self.send(gid, Part::Undo, (attempt, false)).await;
            attempt += 1;
        }
        vec![work, undone, self.call(gid, Part::Work, false).await]
    }

    /// Calls an operation until it is not still at it.
    async fn call(&self, gid: &Gid, part: Part, is_refused: bool) -> Answer {
        for attempt in 1..TRIES {
            match self.send(gid, part, (attempt, is_refused)).await {
                Answer::Ongoing => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
        self.send(gid, part, (TRIES, is_refused)).await
    }

    async fn send(&self, gid: &Gid, part: Part, (attempt, is_refused): (u32, bool)) -> Answer {
        let Subject { ops, dialect, urls, payload, refused, timeout, .. } = &self.subject;
        let [work, undo, confirm] = urls;
        let op = ops.of(part);
        let (url, decision) = match part {
            // A saga is decided before its first action; a try is what the decision waits for.
            Part::Work => (work, (op == Op::Action).then_some(Decision::Commit)),
            Part::Undo => (undo, Some(Decision::Abort)),
            Part::Confirm => (confirm, Some(Decision::Commit)),
        };
        let payload = refused.as_ref().filter(|_| is_refused).unwrap_or(payload);
        let call = Outgoing {
            gid: gid.clone(),
            mode: match ops {
                Ops::Saga => Mode::Saga,
                Ops::Tcc => Mode::Tcc,
            },
            dialect: *dialect,
            branch: BranchId::number(1),
            op,
            attempt,
            epoch: 1,
            decision,
            to: To::Endpoint(Target::Url(url.clone())),
            payload: payload.clone(),
            timeout: *timeout,
        };
        match self.caller.call(&call).await {
            Outcome::Done => Answer::Done,
            Outcome::Refused(_) => Answer::Refused,
            Outcome::Ongoing => Answer::Ongoing,
            Outcome::Unknown(what)
            | Outcome::Unsent { why: what, .. }
            | Outcome::Held(what)
            | Outcome::Denied(what)
            | Outcome::Contradicted(what) => Answer::Other(short(&what)),
        }
    }
}

/// A text as it fits into a line.
fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let clean = line.chars().filter(|c| !c.is_control());
    let mut shown: String = clean.clone().take(SHOWN_MAX).collect();
    if SHOWN_MAX < clean.count() {
        shown.push('…');
    }
    shown
}
