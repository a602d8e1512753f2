//! A stream of what an iterator yields.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

/// Yields the items of an iterator, each at once.
#[derive(Debug)]
pub(crate) struct Iter<I>(pub(crate) I);

impl<I: Iterator + Unpin> Stream for Iter<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}
