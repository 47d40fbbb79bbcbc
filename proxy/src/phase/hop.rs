//! A request that another region's edge passes on: one attempt, on a pod of this region. No cache,
//! no second attempt, no fallback and no charge: all of that is the sender's, who has others to ask.
//! It goes no further.

use std::sync::Arc;

use bytes::BytesMut;
use nearhop_admin::clock;
use nearhop_wire::{DONE, Head as AnswerHead};

use super::{
    Place, admit,
    attempt::Attempts,
    generate,
    generation::Generation,
    record::{Record, Source},
    respond,
};
use crate::{
    client::{Client, Gone},
    event::Event,
    reject::Reject,
};

/// Answers another edge.
pub(super) async fn answer(
    client: &mut impl Client,
    record: &mut Record<'_>,
    head: admit::Head,
) -> Result<(), Reject> {
    let (shared, live) = (Arc::clone(record.shared), Arc::clone(record.live));
    record.caller(&head.caller);
    let _place =
        Place::take(&shared, &head.caller, live.limits.requests).ok_or(Reject::overloaded())?;
    let Some(body) = super::body(client, record).await? else { return Ok(()) };
    let admitted = admit::request(head, body, record, client.address())?;
    record.kind = Some(admitted.kind);
    let (id, trace, tried) =
        (record.request_id.clone(), record.trace.clone(), record.tried.clone());
    let beginning = async {
        let entered = generate::enter(&shared, &admitted).await?;
        let attempts = Attempts::new(&shared, &live, &admitted, (&id, &trace), tried);
        let generation = attempts.for_region().begin().await?;
        Ok::<_, Reject>((entered, generation))
    };
    let (_entered, generation) = tokio::select! {
        begun = beginning => begun?,
        () = client.gone() => {
            record.client_gone();
            return Ok(());
        }
    };
    let head = generation.head(&admitted);
    if relay(client, record, generation, (&head, admitted.request.sampling.n)).await.is_err() {
        record.client_gone();
    }
    Ok(())
}

/// Passes everything on as it comes, with the tokens' ids, in a pod's own words.
async fn relay(
    client: &mut impl Client,
    record: &mut Record<'_>,
    mut generation: Generation<'_>,
    (head, n): (&AnswerHead, usize),
) -> Result<(), Gone> {
    record.content(Source::Origin, clock::now());
    respond::begin_relay(client, record).await?;
    let (mut begun, mut out) = (vec![false; n], BytesMut::new());
    loop {
        let next = match generation.arrived() {
            Ok(Some(event)) => Ok(event),
            Err(outcome) => Err(outcome),
            Ok(None) => {
                // What arrived together is sent together.
                if !out.is_empty() {
                    client.send_body(out.split().freeze(), false).await?;
                }
                tokio::select! {
                    // What hangs here is gone on with elsewhere: nothing of it is kept.
                    next = generation.next(|| false) => next,
                    () = client.gone() => return Err(Gone),
                }
            }
        };
        match next.map(|event| write(event, head, &mut begun, &mut out)) {
            Ok(Wrote::Piece) => {}
            Ok(Wrote::End) => {
                generation.finish().await;
                return client.send_body(out.freeze(), true).await;
            }
            Err(outcome) => {
                record.broken();
                generation.lost(&outcome);
                out.extend_from_slice(&respond::broken_event());
                return client.send_body(out.freeze(), true).await;
            }
        }
    }
}

enum Wrote {
    Piece,
    End,
}

fn write(event: Event, head: &AnswerHead, begun: &mut [bool], out: &mut BytesMut) -> Wrote {
    match event {
        Event::Delta(delta) => {
            let begun = begun.get_mut(delta.index);
            let first = begun.is_some_and(|begun| !std::mem::replace(begun, true));
            out.extend_from_slice(&head.delta_event(&delta, first));
            Wrote::Piece
        }
        Event::Usage(usage) => {
            out.extend_from_slice(&head.usage_event(usage));
            Wrote::Piece
        }
        Event::Done => {
            out.extend_from_slice(DONE);
            Wrote::End
        }
    }
}
