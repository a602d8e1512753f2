//! Judges what was seen of a participant. Nothing here calls anybody or waits.

use std::fmt;

use mainstay_txn::{Dialect, Op};

/// A way in which the calls of a branch arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// The work, once.
    Plain,
    /// The work, then its undo.
    Undone,
    /// The work, sent twice.
    Duplicate,
    /// The work, then its undo twice.
    UndoneTwice,
    /// The work, then what makes it final.
    Confirmed,
    /// The same twice.
    ConfirmedTwice,
    /// The undo of what never came.
    EmptyRollback,
    /// The work, after its undo.
    Hanging,
    /// Work and undo at the same time, then the work once more.
    AtOnce,
    /// Work that the business refuses.
    Refused,
    /// The same, then its undo.
    RefusedUndone,
}

/// What an operation is to a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Work,
    Undo,
    Confirm,
}

/// What the operations of a participant are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ops {
    Saga,
    Tcc,
}

/// What a participant answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx.
    Done,
    /// 409.
    Refused,
    /// 425, however often it was asked.
    Ongoing,
    /// What means neither.
    Other(String),
}

/// A row of a barrier, without what it is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) op: String,
    /// The operation that wrote it.
    pub(super) reason: String,
}

/// What was seen of one branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// In the order of the case's calls.
    pub(super) answers: Vec<Answer>,
    /// By how much the probe differs from before, or, for [`Case::Hanging`], from before the late
    /// call; none if there is no probe.
    pub(super) change: Option<Figure>,
    /// Rows of the barrier, each once; none if it is not looked at.
    pub(super) rows: Option<Vec<Row>>,
}

/// What is known when a case is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) ops: Ops,
    pub(super) dialect: Dialect,
    /// By how much work that is done once changes the probe.
    pub(super) once: Option<Figure>,
    /// The same when it is made final.
    pub(super) confirmed: Option<Figure>,
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// What the participant did wrong, and what to do: a sentence each.
    Fail(Vec<String>),
    /// Why it cannot be said.
    NotJudged(String),
}

impl Verdict {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::NotJudged(_) => "not judged",
        }
    }
}

/// What a call must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Done,
    Refused,
    /// Either is right.
    Known,
    /// Also that it failed: it lost a race that it could not win.
    Whatever,
}

/// What the probe must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Something.
    Some,
    /// What work that is done once changes.
    Once,
    /// The same, made final.
    Final,
    Nothing,
    Any,
}

impl Ops {
    pub(super) const fn of(self, part: Part) -> Op {
        match (self, part) {
            (Self::Saga, Part::Work) => Op::Action,
            (Self::Saga, Part::Undo) => Op::Compensate,
            (Self::Tcc, Part::Work) => Op::Try,
            (Self::Tcc, Part::Undo) => Op::Cancel,
            (Self::Saga | Self::Tcc, Part::Confirm) => Op::Confirm,
        }
    }
}

impl Case {
    /// All that concern `ops`, in an order in which what is known for later ones comes first.
    pub(super) fn all(ops: Ops) -> impl Iterator<Item = Self> {
        const ALL: [Case; 11] = [
            Case::Plain,
            Case::Undone,
            Case::Duplicate,
            Case::UndoneTwice,
            Case::Confirmed,
            Case::ConfirmedTwice,
            Case::EmptyRollback,
            Case::Hanging,
            Case::AtOnce,
            Case::Refused,
            Case::RefusedUndone,
        ];
        let of_tcc = |case: &Self| matches!(case, Self::Confirmed | Self::ConfirmedTwice);
        ALL.into_iter().filter(move |case| ops == Ops::Tcc || !of_tcc(case))
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Undone => "undone",
            Self::Duplicate => "duplicate",
            Self::UndoneTwice => "undone-twice",
            Self::Confirmed => "confirmed",
            Self::ConfirmedTwice => "confirmed-twice",
            Self::EmptyRollback => "empty-rollback",
            Self::Hanging => "hanging",
            Self::AtOnce => "at-once",
            Self::Refused => "refused",
            Self::RefusedUndone => "refused-undone",
        }
    }

    /// Its calls in order. The first two of [`Case::AtOnce`] go out together.
    pub(super) const fn calls(self) -> &'static [Part] {
        use Part::{Confirm, Undo, Work};
        match self {
            Self::Plain | Self::Refused => &[Work],
            Self::Undone | Self::RefusedUndone => &[Work, Undo],
            Self::Duplicate => &[Work, Work],
            Self::UndoneTwice => &[Work, Undo, Undo],
            Self::Confirmed => &[Work, Confirm],
            Self::ConfirmedTwice => &[Work, Confirm, Confirm],
            Self::EmptyRollback => &[Undo],
            Self::Hanging => &[Undo, Work],
            Self::AtOnce => &[Work, Undo, Work],
        }
    }

    /// Whether it is about what the business refuses.
    pub(super) const fn is_refused(self) -> bool {
        matches!(self, Self::Refused | Self::RefusedUndone)
    }

    /// Whether work is left that can be undone.
    pub(super) const fn leaves_work(self) -> bool {
        matches!(self, Self::Plain | Self::Duplicate)
    }

    const fn says(self) -> &'static [Say] {
        match self {
            Self::Plain | Self::EmptyRollback => &[Say::Done],
            Self::Undone | Self::Duplicate | Self::Confirmed => &[Say::Done, Say::Done],
            Self::UndoneTwice | Self::ConfirmedTwice => &[Say::Done, Say::Done, Say::Done],
            Self::Hanging => &[Say::Done, Say::Refused],
            Self::AtOnce => &[Say::Whatever, Say::Done, Say::Known],
            Self::Refused => &[Say::Refused],
            Self::RefusedUndone => &[Say::Refused, Say::Done],
        }
    }

    const fn change(self) -> Change {
        match self {
            Self::Plain => Change::Some,
            Self::Duplicate => Change::Once,
            Self::Confirmed => Change::Any,
            Self::ConfirmedTwice => Change::Final,
            Self::Undone
            | Self::UndoneTwice
            | Self::EmptyRollback
            | Self::Hanging
            | Self::AtOnce
            | Self::Refused
            | Self::RefusedUndone => Change::Nothing,
        }
    }

    /// Rows of the barrier that are right, each as operation and who wrote it.
    const fn rows(self) -> &'static [&'static [(Part, Part)]] {
        use Part::{Confirm, Undo, Work};
        const DONE: &[(Part, Part)] = &[(Work, Work)];
        const UNDONE: &[(Part, Part)] = &[(Work, Work), (Undo, Undo)];
        const EMPTY: &[(Part, Part)] = &[(Work, Undo), (Undo, Undo)];
        match self {
            Self::Plain | Self::Duplicate => &[DONE],
            Self::Undone | Self::UndoneTwice => &[UNDONE],
            Self::Confirmed | Self::ConfirmedTwice => &[&[(Work, Work), (Confirm, Confirm)]],
            Self::EmptyRollback | Self::Hanging | Self::RefusedUndone => &[EMPTY],
            Self::AtOnce => &[UNDONE, EMPTY],
            Self::Refused => &[&[]],
        }
    }

    /// Whether the right answers alone show that it is right.
    const fn is_told_by_answers(self) -> bool {
        matches!(self, Self::Plain | Self::Undone | Self::Confirmed | Self::Hanging)
    }

    /// What is expected of the participant, for people.
    pub(super) fn expected(self, known: &Known) -> String {
        let says = self.says().iter().map(|say| match say {
            Say::Done => "2xx",
            Say::Refused if is_lenient(self, known) => "409 or 2xx",
            Say::Refused => "409",
            Say::Known => "2xx or 409",
            Say::Whatever => "any",
        });
        let ops = self.calls().iter().zip(says);
        let calls: Vec<String> =
            ops.map(|(part, say)| format!("{} {say}", known.ops.of(*part))).collect();
        let change = match self.change() {
            Change::Some => "; work done",
            Change::Once => "; done once",
            Change::Final => "; final once",
            Change::Nothing => "; nothing left",
            Change::Any => "",
        };
        format!("{}{change}", calls.join(", "))
    }
}

/// Barriers of DTM's clients skip what comes after its undo, and answer 2xx.
fn is_lenient(case: Case, known: &Known) -> bool {
    case == Case::Hanging && known.dialect == Dialect::Dtm
}

/// Judges `case` by what was `seen` of it.
pub(super) fn judge(case: Case, known: &Known, seen: &Seen) -> Verdict {
    let mut faults = wrong_answers(case, known, seen);
    let change = wrong_change(case, known, seen);
    faults.extend(change.clone().unwrap_or_default());
    faults.extend(wrong_rows(case, known, seen));
    if !faults.is_empty() {
        return Verdict::Fail(faults);
    }
    let skipped = seen.answers.last() == Some(&Answer::Done) && is_lenient(case, known);
    match change {
        Err(why) if !case.is_told_by_answers() || seen.change.is_some() || skipped => {
            Verdict::NotJudged(why)
        }
        _ => Verdict::Pass,
    }
}

fn wrong_answers(case: Case, known: &Known, seen: &Seen) -> Vec<String> {
    let calls = case.calls().iter().zip(case.says()).zip(&seen.answers);
    let wrong = calls.filter_map(|((part, say), answer)| {
        let op = known.ops.of(*part);
        let is_right = match (say, answer) {
            (Say::Whatever, _)
            | (Say::Done | Say::Known, Answer::Done)
            | (Say::Refused | Say::Known, Answer::Refused) => true,
            (Say::Refused, Answer::Done) => is_lenient(case, known),
            _ => false,
        };
        (!is_right).then(|| advice_on_answer(case, *part, op, *say, answer))
    });
    wrong.collect()
}

/// What to do about an answer that is wrong.
fn advice_on_answer(case: Case, part: Part, op: Op, say: Say, answer: &Answer) -> String {
    let must = match (say, part, answer) {
        (Say::Refused, _, Answer::Done) if case.is_refused() => {
            "an error of the business was told as a success: roll back and answer 409"
        }
        (Say::Refused, _, Answer::Done) => {
            "it was taken although its undo was here before: the undo must leave a row in its \
             place, in its own local transaction, and what finds that row answers 409 and does \
             nothing"
        }
        (Say::Refused, ..) => "answer 409, which alone says that it never will be done",
        (Say::Done | Say::Known, Part::Work, Answer::Refused) => {
            "answer 2xx to what is done, also to what was done before; is --body one that the \
             business takes?"
        }
        (Say::Done | Say::Known, Part::Undo | Part::Confirm, Answer::Refused) => {
            "it may not be refused, since all others do it; answer 2xx, also when there is \
             nothing to do or it was done before"
        }
        (Say::Done | Say::Known, _, Answer::Ongoing) => {
            "425 is for a short while: end it, then answer 2xx"
        }
        _ => {
            "answer 2xx; whatever is neither 2xx, 409 nor 425 leaves open what was done, and is \
              asked again for ever"
        }
    };
    format!("`{op}` was answered {answer}: {must}")
}

/// What the probe shows that should not be; `Err` when it cannot be said.
fn wrong_change(case: Case, known: &Known, seen: &Seen) -> Result<Vec<String>, String> {
    let Some(change) = seen.change else {
        return Err("answers alone do not show it; give --database and --probe".to_owned());
    };
    let of_unknown = |case: Case| format!("case `{}` does not say what is right", case.as_str());
    let wants = match case.change() {
        Change::Any => return Ok(Vec::new()),
        Change::Some if change != Figure::ZERO => return Ok(Vec::new()),
        Change::Some => {
            let op = known.ops.of(Part::Work);
            return Ok(vec![format!(
                "`{op}` changed nothing that the probe sees: commit the work before the answer, or \
                 give a --probe whose number it changes"
            )]);
        }
        Change::Nothing => Figure::ZERO,
        Change::Once => known.once.ok_or_else(|| of_unknown(Case::Plain))?,
        Change::Final => known.confirmed.ok_or_else(|| of_unknown(Case::Confirmed))?,
    };
    if change == wants {
        return Ok(Vec::new());
    }
    let advice = advice_on_change(case, known.ops);
    Ok(vec![format!("the probe changed by {change} and not by {wants}: {advice}")])
}

/// What to do about work that is there and should not be, or the other way round.
fn advice_on_change(case: Case, ops: Ops) -> String {
    let [work, undo, confirm] = [Part::Work, Part::Undo, Part::Confirm].map(|part| ops.of(part));
    let keep = "keep a row of gid, branch and operation in the same local transaction as the work";
    match case {
        Case::Plain | Case::Confirmed => String::new(),
        Case::Undone => format!("`{undo}` must put back what `{work}` did, before it is answered"),
        Case::Duplicate => {
            format!("`{work}` was done again; {keep}, and do nothing where it is there already")
        }
        Case::UndoneTwice => {
            format!("`{undo}` was done again; {keep}, and do nothing where it is there already")
        }
        Case::ConfirmedTwice => {
            format!("`{confirm}` was done again; {keep}, and do nothing where it is there already")
        }
        Case::EmptyRollback => format!(
            "`{undo}` undid what was never done; {keep}, and where that of `{work}` is missing \
             write it in its place and undo nothing"
        ),
        Case::Hanging => format!(
            "`{work}` was done although `{undo}` came first; {keep}, `{undo}` also that of \
             `{work}`, and do nothing where it is there already"
        ),
        Case::AtOnce => format!(
            "`{work}` and `{undo}` at the same time ended otherwise than one after the other; \
             {keep}, inserted before the work, so that whoever comes second waits for it"
        ),
        Case::Refused => format!("`{work}` left something although it was refused: roll back"),
        Case::RefusedUndone => format!(
            "`{undo}` undid what was refused; roll the row back with the work, so that `{undo}` \
             finds none and undoes nothing"
        ),
    }
}

fn wrong_rows(case: Case, known: &Known, seen: &Seen) -> Option<String> {
    let rows = seen.rows.as_ref()?;
    let right = |wanted: &&[(Part, Part)]| {
        let mut wanted: Vec<Row> = wanted
            .iter()
            .map(|(op, by)| Row {
                op: known.ops.of(*op).to_string(),
                reason: known.ops.of(*by).to_string(),
            })
            .collect();
        wanted.sort();
        wanted
    };
    let alternatives: Vec<Vec<Row>> = case.rows().iter().map(right).collect();
    let mut rows = rows.clone();
    rows.sort();
    rows.dedup();
    if alternatives.contains(&rows) {
        return None;
    }
    let wanted: Vec<String> = alternatives.iter().map(|rows| listed(rows)).collect();
    let advice = if case == Case::Refused {
        "roll the row back together with the work"
    } else {
        "write it in the local transaction of the work, also where nothing is done, and commit"
    };
    Some(format!("the barrier has {} and not {}: {advice}", listed(&rows), wanted.join(" or ")))
}

/// Rows for people: operations, and who wrote them if not they themselves.
fn listed(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no row".to_owned();
    }
    let rows = rows.iter().map(
        |Row { op, reason }| {
            if op == reason { op.clone() } else { format!("{op} by {reason}") }
        },
    );
    format!("rows {}", rows.collect::<Vec<_>>().join(" + "))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("2xx"),
            Self::Refused => f.write_str("409"),
            Self::Ongoing => f.write_str("425"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<String> = self.answers.iter().map(ToString::to_string).collect();
        f.write_str(&answers.join(", "))?;
        if let Some(change) = self.change {
            write!(f, "; probe {change}")?;
        }
        if let Some(rows) = &self.rows {
            write!(f, "; {}", listed(rows))?;
        }
        Ok(())
    }
}

/// Digits behind the point that are looked at.
const PLACES: usize = 9;

/// A number that a probe returned, in billionths, or the difference of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figure(i128);

impl Figure {
    pub(super) const ZERO: Self = Self(0);

    /// Reads digits, with a sign and a point if need be.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(rest) {
            return None;
        }
        let rest: String = rest.chars().chain("000000000".chars()).take(PLACES).collect();
        let billionths: i128 = format!("{whole}{rest}").parse().ok()?;
        Some(Self(if is_negative { -billionths } else { billionths }))
    }

    pub(super) const fn minus(self, before: Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.0 {
            0 => "",
            ..0 => "-",
            _ => "+",
        };
        let digits = format!("{:010}", self.0.unsigned_abs());
        let (whole, rest) = digits.split_at(digits.len() - PLACES);
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{rest}")
    }
}
