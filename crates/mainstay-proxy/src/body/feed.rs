//! The way of a body from the connection it comes over to whoever reads it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

use super::BodyError;

/// One frame at a time goes from a connection to the reader of a body, when the reader asks for it.
///
/// Usually both are polled by one task, and then nobody wakes anybody: each looks after the other
/// was polled. They need not be: a body may go up over an HTTP/2 connection, which has a task of
/// its own.
#[derive(Debug)]
pub(crate) struct Feed(Mutex<State>);

#[derive(Debug)]
struct State {
    frame: Option<Result<Frame<Bytes>, BodyError>>,
    /// Nothing comes after the frame.
    over: bool,
    /// Nothing comes because the connection is gone.
    cut: bool,
    /// Bytes that are not read yet, where that is known.
    left: Option<u64>,
    /// The reader waits.
    wanted: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

impl Feed {
    /// Nothing yet, of `left` bytes.
    pub(crate) fn new(left: Option<u64>) -> Self {
        let (frame, reader, connection) = (None, None, None);
        Self(Mutex::new(State {
            frame,
            over: false,
            cut: false,
            left,
            wanted: false,
            reader,
            connection,
        }))
    }

    /// Ready while the reader waits for a frame. The task is woken when that changes, unless it
    /// is the reader's own.
    pub(crate) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        note(&mut state.connection, cx.waker());
        if state.wanted { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The connection is gone. A body that is not over ends with an error.
    pub(crate) fn cut(&self) {
        let mut state = self.0.lock();
        if state.over {
            return;
        }
        (state.over, state.cut) = (true, true);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Gives the reader a frame, after which `left` bytes are to come; `over` when it was the last.
    /// The frame before must have been taken.
    pub(crate) fn put(
        &self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
        left: Option<u64>,
        over: bool,
    ) {
        let mut state = self.0.lock();
        let here = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        state.left = left.map(|left| left + here.map_or(0, |data| data.len() as u64));
        (state.frame, state.over, state.wanted) = (frame, over, false);
        let reader = state.reader.take();
        let own =
            reader.as_ref().zip(state.connection.as_ref()).is_some_and(|(a, b)| a.will_wake(b));
        drop(state);
        if let Some(reader) = reader.filter(|_| !own) {
            reader.wake();
        }
    }

    /// The next frame, for the reader.
    pub(crate) fn poll_frame(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.lock();
        if let Some(frame) = state.frame.take() {
            let here = frame.as_ref().ok().and_then(Frame::data_ref);
            let here = here.map_or(0, |data| data.len() as u64);
            state.left = state.left.map(|left| left.saturating_sub(here));
            return Poll::Ready(Some(frame));
        }
        if std::mem::take(&mut state.cut) {
            let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Poll::Ready(Some(Err(BodyError::Broken(cut.into()))));
        }
        if state.over {
            return Poll::Ready(None);
        }
        note(&mut state.reader, cx.waker());
        if std::mem::replace(&mut state.wanted, true) {
            return Poll::Pending;
        }
        let other = state.connection.take_if(|waker| !waker.will_wake(cx.waker()));
        drop(state);
        if let Some(connection) = other {
            connection.wake();
        }
        Poll::Pending
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.0.lock();
        state.over && !state.cut && state.frame.is_none()
    }

    /// Bytes that are not read yet, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.0.lock().left
    }
}

/// Keeps `waker` for later.
fn note(kept: &mut Option<Waker>, waker: &Waker) {
    if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        *kept = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reader of a body finds: `a` data, `!` an error, `.` the end, `-` nothing yet.
    fn read(feed: &Feed) -> char {
        match feed.poll_frame(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(_))) => 'a',
            Poll::Ready(Some(Err(_))) => '!',
            Poll::Ready(None) => '.',
            Poll::Pending => '-',
        }
    }

    fn data() -> Frame<Bytes> {
        Frame::data(Bytes::from_static(b"x"))
    }

    #[test]
    fn a_body_that_is_cut_never_looks_whole() {
        let feed = Feed::new(None);
        assert_eq!(read(&feed), '-');
        feed.put(Some(Ok(data())), None, false);
        feed.cut();
        assert!(!feed.is_over());
        assert_eq!([read(&feed), read(&feed), read(&feed)], ['a', '!', '.']);
    }

    #[test]
    fn a_body_that_is_whole_is_not_cut_by_the_end_of_its_connection() {
        let feed = Feed::new(Some(1));
        feed.put(Some(Ok(data())), Some(0), true);
        feed.cut();
        assert_eq!(feed.left(), Some(1));
        assert_eq!([read(&feed), read(&feed)], ['a', '.']);
        assert!(feed.is_over());
    }
}
