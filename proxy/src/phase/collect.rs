//! Pieces to a whole answer. Pure; trusts no pod.

use nearhop_wire::{Answer, Choice, Delta, Finish, Head, TokenLogprob, Usage};

use crate::{
    event::Event,
    upstream::outcome::{Failed, Outcome},
};

/// An answer that is being put together.
#[derive(Debug)]
pub(crate) struct Collector {
    head: Head,
    choices: Vec<Collected>,
    usage: Option<Usage>,
    bytes: usize,
    pieces: usize,
}

#[derive(Debug, Clone, Default)]
struct Collected {
    text: String,
    logprobs: Vec<TokenLogprob>,
    finish: Option<Finish>,
}

/// What came is not one answer to what was asked.
const WRONG: Outcome = Outcome::Failed(Failed::Garbage);

/// More pieces than a context has tokens are no answer, however empty they are.
const PIECES_MAX: usize = 1 << 18;
/// No answer of at most a context's tokens is as long as this.
const TEXT_BYTES_MAX: usize = 4 << 20;

impl Collector {
    pub(crate) fn new(head: Head, n: usize) -> Self {
        Self { head, choices: vec![Collected::default(); n], usage: None, bytes: 0, pieces: 0 }
    }

    /// Takes anything that is said.
    pub(crate) fn take(&mut self, event: &Event) -> Result<(), Outcome> {
        match event {
            Event::Delta(delta) => self.append(delta),
            Event::Usage(usage) => {
                self.usage = Some(*usage);
                Ok(())
            }
            Event::Done => Ok(()),
        }
    }

    /// Takes a piece of text.
    pub(crate) fn append(&mut self, delta: &Delta) -> Result<(), Outcome> {
        let choice = self.choices.get_mut(delta.index).ok_or(WRONG)?;
        let shown = delta.logprobs.iter().flat_map(|token| &token.top);
        self.bytes += delta.text.len() + shown.map(|(token, _)| token.len()).sum::<usize>();
        self.pieces += 1;
        let much = self.bytes > TEXT_BYTES_MAX || self.pieces > PIECES_MAX;
        if choice.finish.is_some() || much {
            return Err(WRONG);
        }
        choice.text.push_str(&delta.text);
        choice.logprobs.extend_from_slice(&delta.logprobs);
        choice.finish = delta.finish;
        Ok(())
    }

    /// Whether every choice has ended and the usage is known.
    pub(crate) fn is_complete(&self) -> bool {
        self.usage.is_some() && self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// The whole answer, after the terminator: every choice has ended and the usage is known.
    pub(crate) fn finish(&mut self) -> Result<Answer, Outcome> {
        let choices = std::mem::take(&mut self.choices).into_iter().map(
            |Collected { text, logprobs, finish }| {
                finish.map(|finish| Choice { text, finish, logprobs }).ok_or(WRONG)
            },
        );
        Ok(Answer {
            head: self.head.clone(),
            choices: choices.collect::<Result<_, _>>()?,
            usage: self.usage.ok_or(WRONG)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use nearhop_wire::Endpoint;

    use super::*;

    fn head() -> Head {
        Head {
            id: "1".into(),
            created: 1,
            model: "m".into(),
            fingerprint: "f".into(),
            endpoint: Endpoint::Completions,
        }
    }

    fn piece(index: usize, text: &str, finish: Option<Finish>) -> Event {
        Event::Delta(Delta { index, text: text.into(), finish, ..Delta::default() })
    }

    fn collect(n: usize, events: &[Event]) -> Result<Answer, Outcome> {
        let mut collector = Collector::new(head(), n);
        events.iter().try_for_each(|event| collector.take(event))?;
        collector.finish()
    }

    #[test]
    fn pieces_of_several_choices_become_one_answer() {
        let usage = Usage { prompt_tokens: 1, completion_tokens: 3, ..Usage::default() };
        let events = [
            piece(0, "a", None),
            piece(1, "x", Some(Finish::Length)),
            piece(0, "b", Some(Finish::Stop)),
            Event::Usage(usage),
        ];
        let answer = collect(2, &events).unwrap();
        let texts: Vec<&str> = answer.choices.iter().map(|choice| choice.text.as_str()).collect();
        assert_eq!((texts, answer.usage), (vec!["ab", "x"], usage));
    }

    #[test]
    fn an_answer_that_is_not_one_is_wrong() {
        let usage = Event::Usage(Usage::default());
        let stop = Some(Finish::Stop);
        assert_eq!(collect(1, &[piece(0, "a", None), usage.clone()]), Err(WRONG), "no end");
        assert_eq!(collect(1, &[piece(0, "a", stop)]), Err(WRONG), "no usage");
        assert_eq!(collect(1, &[piece(1, "a", stop), usage.clone()]), Err(WRONG), "no such choice");
        let after = [piece(0, "a", stop), piece(0, "b", stop), usage];
        assert_eq!(collect(1, &after), Err(WRONG), "text after the end");
    }
}
