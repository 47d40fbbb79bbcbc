//! What the tier would do with a conversation, and why: for whoever may ask as its owner. No text but
//! the words of the question itself is shown.

use nearhop_admin::clock;
use nearhop_conf::L3Mode;
use nearhop_edge_cache::{
    Asker, Standing, Tags,
    semantic::{Age, How, Models, Seen, Stage, Trial, Verdict},
};
use nearhop_wire::{CompletionRequest, ModelReport};
use serde_json::{Value, json};

use super::Semantic;
use crate::phase::Shared;

/// What there is near `request`, and what follows.
pub(crate) async fn explain(
    (shared, semantic): (&Shared, &Semantic),
    request: &CompletionRequest,
    (asker, tags): (Asker<'_>, Tags),
    model: &ModelReport,
) -> Value {
    let mode = super::mode(shared, asker.tenant, model);
    let off = |verdict: &str| json!({ "mode": mode_name(mode), "verdict": verdict });
    if mode == L3Mode::Off {
        return off("no route of edge.l3 is for it");
    }
    let Some(embedder) = semantic.embedder.fingerprint() else {
        return off("no embedder was ever ready");
    };
    let models = Models { model, embedder: &embedder };
    let site = match semantic.cache.site(request, asker, models, tags) {
        Ok(site) => site,
        Err(none) => return off(none.name()),
    };
    let now = clock::since_epoch();
    let route = semantic.cache.route(&site);
    let told = json!({
        "exact": trial(route.trial(How::Exact)), "similar": trial(route.trial(How::Similar)),
        "limit": semantic.settings.wrong,
    });
    let exact = semantic.cache.exact(&site, Age::Fresh, now).is_some();
    let said = |verdict: &str, neighbours: Vec<Value>| {
        json!({
            "mode": mode_name(mode), "route": told, "embedder": embedder, "exact": exact,
            "verdict": verdict, "floor": semantic.settings.floor, "sure": semantic.settings.sure,
            "neighbours": neighbours,
        })
    };
    let vector = match semantic.embedder.lesson(&site).await {
        Ok(vector) => vector,
        Err(why) => return said(why, Vec::new()),
    };
    let policy = semantic.cache.settings().policy;
    let near = semantic.cache.near(&site, &vector, (policy, Age::Fresh), now);
    let verdict = match (exact, near.verdict) {
        (true, _) => "the same question was answered",
        (false, Verdict::Serve(..)) => "the nearest answers",
        (false, Verdict::Refuse(why, _)) => why.name(),
    };
    let by = if exact { How::Exact } else { How::Similar };
    let verdict = match (mode, route.trial(by).stage()) {
        (L3Mode::Shadow, _) => format!("{verdict}, but the route is in shadow"),
        (_, stage @ (Stage::Proving | Stage::Off)) => {
            format!("{verdict}, but the route is {}", stage.name())
        }
        (_, Stage::Proven) => verdict.to_owned(),
    };
    let neighbours = semantic.cache.explain(&site, &vector, now);
    said(&verdict, neighbours.iter().map(neighbour).collect())
}

/// What was compared of a route, and what follows.
pub(crate) fn trial(trial: &Trial) -> Value {
    let ((judged, wrong), (recent, recent_wrong)) = (trial.totals(), trial.recent());
    json!({
        "stage": trial.stage().name(), "judged": judged, "wrong": wrong,
        "recent": recent, "recent_wrong": recent_wrong, "bound": trial.bound(),
    })
}

/// For people.
pub(crate) const fn mode_name(mode: L3Mode) -> &'static str {
    match mode {
        L3Mode::Off => "off",
        L3Mode::Shadow => "shadow",
        L3Mode::Serve => "serve",
    }
}

fn neighbour(seen: &Seen<'_>) -> Value {
    let Seen { neighbour, standing, lacks, has_more } = seen;
    let (compared, wrong) = neighbour.evidence.totals();
    let age = match standing {
        Standing::Fresh(_) => "fresh",
        Standing::Stale(_) => "stale",
        Standing::Gone => "gone",
    };
    json!({
        "similarity": neighbour.similarity,
        "veto": neighbour.veto.map(nearhop_edge_cache::semantic::Veto::name),
        "lacks": lacks,
        "has_more": has_more,
        "class": neighbour.class,
        "vouched": neighbour.vouched,
        "evidence": {
            "compared": compared, "wrong": wrong,
            "most_wrong": neighbour.evidence.most_wrong(neighbour.similarity),
        },
        "age": age,
    })
}
