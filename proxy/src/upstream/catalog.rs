//! Models by what requests call them. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use nearhop_wire::{ModelReport, PodReport};

/// Models by what requests call them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// By name.
    models: BTreeMap<String, Arc<ModelReport>>,
    /// By alias, and by `name@revision`.
    others: BTreeMap<String, Arc<ModelReport>>,
}

impl Catalog {
    /// What `near` serve together: of each name the most widely served revision, so that a request's
    /// key and its pods agree while a new revision is rolled out. What only `far` serve, other
    /// regions, stands behind it; what only providers take, `foreign`, behind that.
    pub(crate) fn of(
        near: &[Arc<PodReport>],
        far: &[Arc<PodReport>],
        foreign: &[Arc<PodReport>],
    ) -> Self {
        let mut catalog = Self::default();
        for reports in [near, far, foreign] {
            let behind = Self::of_alike(reports);
            for (name, report) in behind.models {
                catalog.models.entry(name).or_insert(report);
            }
            for (name, report) in behind.others {
                catalog.others.entry(name).or_insert(report);
            }
        }
        catalog
    }

    /// Keeps what `before` knew, behind what is known now.
    pub(crate) fn keep(&mut self, before: &Self) {
        for (name, report) in &before.models {
            self.models.entry(name.clone()).or_insert_with(|| Arc::clone(report));
        }
        for (name, report) in &before.others {
            self.others.entry(name.clone()).or_insert_with(|| Arc::clone(report));
        }
    }

    fn of_alike(reports: &[Arc<PodReport>]) -> Self {
        let active = || reports.iter().flat_map(|report| &report.models);
        let all = || active().chain(reports.iter().flat_map(|report| &report.kept));
        let names = active().map(|report| (report.name.clone(), report));
        let aliases = active()
            .flat_map(|report| report.aliases.iter().map(move |alias| (alias.clone(), report)));
        let revisions = all().map(|report| (report.fingerprint(), report));
        Self { models: widest(names.collect()), others: widest(aliases.chain(revisions).collect()) }
    }

    /// The model that a request names, at the revision that will answer: by name, by alias, or as
    /// `name@revision`. Without a name the alias `default`, or else the first of them, for clients
    /// that have no setting for it.
    pub(crate) fn find(&self, asked: Option<&str>) -> Option<Arc<ModelReport>> {
        let named = |name: &str| self.models.get(name).or_else(|| self.others.get(name));
        match asked {
            Some(name) => named(name).cloned(),
            None => named("default").or_else(|| self.models.values().next()).cloned(),
        }
    }

    /// Every model, by name.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Arc<ModelReport>> {
        self.models.values()
    }

    /// What is reported of it to other regions: the revision that each name means, and the others.
    pub(crate) fn report(&self, slots: usize) -> PodReport {
        let kept = self.others.iter().filter(|(name, report)| **name == report.fingerprint());
        let meant = |report: &ModelReport| {
            self.models.get(&report.name).is_some_and(|meant| **meant == *report)
        };
        PodReport {
            models: self.models.values().map(|report| (**report).clone()).collect(),
            kept: kept
                .filter(|(_, report)| !meant(report))
                .map(|(_, report)| (**report).clone())
                .collect(),
            slots,
            embedders: Vec::new(),
        }
    }
}

/// Of each name the report that the most pods agree on.
fn widest(named: Vec<(String, &ModelReport)>) -> BTreeMap<String, Arc<ModelReport>> {
    let means = |(name, report): &(String, &ModelReport)| {
        (name.clone(), report.name.clone(), report.revision.clone(), report.template.clone())
    };
    let mut pods: HashMap<_, usize> = HashMap::new();
    for named in &named {
        *pods.entry(means(named)).or_default() += 1;
    }
    let mut ranked: Vec<_> =
        named.iter().map(|named| (pods[&means(named)], means(named), named)).collect();
    // The last of a name stays.
    ranked.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    ranked
        .into_iter()
        .map(|(_, _, (name, report))| (name.clone(), Arc::new((*report).clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(models: &[(&str, &str)]) -> Arc<PodReport> {
        let models = models.iter().map(|(name, revision)| ModelReport {
            name: (*name).to_owned(),
            revision: (*revision).to_owned(),
            template: "t".to_owned(),
            temperature: 0.0,
            max_tokens: 64,
            context_length: 1024,
            aliases: Vec::new(),
            suffix_first: false,
        });
        Arc::new(PodReport {
            models: models.collect(),
            kept: Vec::new(),
            slots: 8,
            embedders: Vec::new(),
        })
    }

    fn check(near: &[Arc<PodReport>], far: &[Arc<PodReport>], expected: &[(&str, &str)]) {
        let catalog = Catalog::of(near, far, &[]);
        let models = catalog.models.values();
        let got: Vec<(&str, &str)> =
            models.map(|report| (report.name.as_str(), report.revision.as_str())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_most_widely_served_revision_is_pinned() {
        let (old, new) = (report(&[("m", "1")]), report(&[("m", "2"), ("n", "1")]));
        check(&[], &[], &[]);
        check(&[old.clone(), new.clone(), old.clone()], &[], &[("m", "1"), ("n", "1")]);
        check(&[old.clone(), new.clone(), new.clone()], &[], &[("m", "2"), ("n", "1")]);
        check(&[old, new], &[], &[("m", "2"), ("n", "1")]);
    }

    #[test]
    fn another_region_names_only_what_this_one_does_not() {
        let (here, there) = (report(&[("m", "1")]), report(&[("m", "2"), ("n", "1")]));
        check(
            std::slice::from_ref(&here),
            &[there.clone(), there.clone()],
            &[("m", "1"), ("n", "1")],
        );
        let catalog = Catalog::of(&[here], &[there], &[]);
        assert_eq!(catalog.find(Some("m@2")).unwrap().revision, "2", "it can be asked for");
        let told = catalog.report(4);
        let kept: Vec<String> = told.kept.iter().map(ModelReport::fingerprint).collect();
        assert_eq!((kept, told.slots), (vec!["m@2".to_owned()], 4));
    }

    #[test]
    fn what_was_known_stays_behind_what_is_known_now() {
        let before = Catalog::of(&[report(&[("m", "1"), ("n", "1")])], &[], &[]);
        let mut catalog = Catalog::of(&[], &[report(&[("m", "2")])], &[]);
        catalog.keep(&before);
        let revision = |name: &str| catalog.find(Some(name)).map(|report| report.fingerprint());
        assert_eq!(revision("m").unwrap(), "m@2");
        assert_eq!(revision("n").unwrap(), "n@1");
        assert_eq!(revision("x"), None);
    }

    #[test]
    fn an_alias_and_a_kept_revision_are_found() {
        let mut pod = (*report(&[("m", "2"), ("n", "1")])).clone();
        pod.models[0].aliases = vec!["default".to_owned(), "n".to_owned()];
        pod.kept = report(&[("m", "1")]).models.clone();
        let catalog = Catalog::of(&[report(&[("m", "1")]), Arc::new(pod)], &[], &[]);
        let revision = |name: &str| catalog.find(Some(name)).map(|report| report.fingerprint());
        assert_eq!(revision("default").unwrap(), "m@2", "the alias is of the pod that has it");
        assert_eq!(
            (revision("m@1").unwrap(), revision("m@2").unwrap()),
            ("m@1".into(), "m@2".into())
        );
        assert_eq!(revision("n").unwrap(), "n@1", "a name goes before an alias");
        assert_eq!(revision("m").unwrap(), "m@2", "what is kept aside is no candidate");
    }
}
