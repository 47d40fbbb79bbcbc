//! Attempts under way: one, and a second beside it where that one is late.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

/// At most two futures of a kind.
pub(super) struct UnderWay<F>([Option<Pin<Box<F>>>; 2]);

impl<F> Default for UnderWay<F> {
    fn default() -> Self {
        Self([None, None])
    }
}

impl<F: Future> UnderWay<F> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Adds one, which is begun when [`Self::next`] is waited for.
    ///
    /// # Panics
    /// Where there are two.
    pub(super) fn push(&mut self, one: F) {
        let free = self.0.iter_mut().find(|one| one.is_none());
        *free.expect("no third is begun beside two") = Some(Box::pin(one));
    }

    /// What the first that ends gives. Nothing is lost where this is given up.
    pub(super) async fn next(&mut self) -> F::Output {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        for place in &mut self.0 {
            if let Some(one) = place
                && let Poll::Ready(output) = one.as_mut().poll(cx)
            {
                *place = None;
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_that_ends_is_given_and_the_other_goes_on() {
        let mut under_way = UnderWay::default();
        let ((first, waits), (second, ends)) = (oneshot::channel(), oneshot::channel());
        under_way.push(waits);
        under_way.push(ends);
        second.send(2).unwrap();
        assert_eq!(under_way.next().await, Ok(2));
        assert!(!under_way.is_empty());
        first.send(1).unwrap();
        assert_eq!(under_way.next().await, Ok(1));
        assert!(under_way.is_empty());
    }
}
