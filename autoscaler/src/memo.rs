//! An answer that is kept as long as the question is the same. Pure.

use std::sync::Arc;

/// An object of a cache, which never changes: it is the same as itself alone, and compared without a look at it.
#[derive(Debug, Clone)]
pub(crate) struct Same<T>(pub(crate) Arc<T>);

/// The last answer, and the question that it was made for.
#[derive(Debug)]
pub(crate) struct Memo<Q, A> {
    last: Option<(Q, Arc<A>)>,
}

// === impl Same ===

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

// === impl Memo ===

impl<Q, A> Default for Memo<Q, A> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<Q: PartialEq, A> Memo<Q, A> {
    /// The answer to `question`: the last one where that was the same, else what `make` makes.
    pub(crate) fn get(&mut self, question: Q, make: impl FnOnce(&Q) -> A) -> Arc<A> {
        if let Some((asked, answer)) = &self.last
            && *asked == question
        {
            return Arc::clone(answer);
        }
        let answer = Arc::new(make(&question));
        self.last = Some((question, Arc::clone(&answer)));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_not_the_same_as_another_one_just_like_it() {
        let object = Arc::new(1);
        let same = Same(Arc::clone(&object));
        assert_eq!(same, Same(object));
        assert_ne!(same, Same(Arc::new(1)));
    }

    #[test]
    fn only_another_question_is_answered_anew() {
        let mut memo = Memo::default();
        let mut made = 0;
        let mut answers = Vec::new();
        for question in [1, 1, 2, 2, 1] {
            let answer = memo.get(question, |question| {
                made += 1;
                question * 10
            });
            answers.push(*answer);
        }
        assert_eq!((answers, made), (vec![10, 10, 20, 20, 10], 3));
    }
}
