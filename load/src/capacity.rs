//! How many processors and pods a rate needs: a calculation from what a run measured. Pure.
//!
//! ```text
//! edge cores = rate × edge CPU a request / use          use: the most that the capacity table allows
//! pod cores  = rate × generated share × pod CPU an answer / use
//! ```
//!
//! It says nothing of peaks within a second, of GPUs, of memory, or of a network; and a part of a
//! processor that other programs use is not there. Where costs of single paths are known, from the
//! benchmarks, the first line is also made of them: each path's share times its cost.

use serde::{Deserialize, Serialize};

/// Rates that are planned for, with the use of processors that the table allows at each.
const PLANNED: [(f64, f64); 3] = [(50_000.0, 0.60), (100_000.0, 0.80), (150_000.0, 0.95)];

/// What a run measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Costs {
    /// Processor time of the edges for a request, all paths together, seconds.
    pub edge_cpu_s: Option<f64>,
    /// Processor time of the pods for a generated answer, seconds.
    pub pod_cpu_s: Option<f64>,
    /// The share of requests that were generated.
    pub generated: Option<f64>,
}

/// Processor time of the edge by path, as the benchmarks measure it, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCosts {
    /// Answered from its cache.
    pub hit_cpu_s: f64,
    /// Passed on to a pod.
    pub miss_cpu_s: f64,
}

/// What one rate needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Need {
    /// Requests a second.
    pub rate: f64,
    /// The use of processors that is planned with.
    pub planned_use: f64,
    /// Cores of edges, by the run's own cost.
    pub edge_cores: Option<f64>,
    /// The same by the benchmarks' costs of paths.
    pub edge_cores_by_path: Option<f64>,
    /// Cores of pods.
    pub pod_cores: Option<f64>,
}

/// What the planned rates need.
pub(crate) fn needs(costs: &Costs, paths: Option<&PathCosts>) -> Vec<Need> {
    let need = |(rate, planned_use): (f64, f64)| Need {
        rate,
        planned_use,
        edge_cores: costs.edge_cpu_s.map(|cost| rate * cost / planned_use),
        edge_cores_by_path: paths.zip(costs.generated).map(|(paths, generated)| {
            let a_request = paths.hit_cpu_s * (1.0 - generated) + paths.miss_cpu_s * generated;
            rate * a_request / planned_use
        }),
        pod_cores: costs
            .pod_cpu_s
            .zip(costs.generated)
            .map(|(cost, generated)| rate * generated * cost / planned_use),
    };
    PLANNED.into_iter().map(need).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_rates_times_costs_over_use() {
        let costs = Costs { edge_cpu_s: Some(40e-6), pod_cpu_s: Some(0.02), generated: Some(0.5) };
        let paths = PathCosts { hit_cpu_s: 20e-6, miss_cpu_s: 40e-6 };
        let needs = needs(&costs, Some(&paths));
        let near = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-6;
        assert!(near(needs[0].edge_cores, 50_000.0 * 40e-6 / 0.6), "{needs:?}");
        assert!(near(needs[1].edge_cores_by_path, 100_000.0 * 30e-6 / 0.8));
        assert!(near(needs[2].pod_cores, 150_000.0 * 0.5 * 0.02 / 0.95));
        let unknown = Costs { edge_cpu_s: None, pod_cpu_s: None, generated: None };
        let needs = super::needs(&unknown, Some(&paths));
        assert!(
            needs.iter().all(|need| need.edge_cores.is_none() && need.edge_cores_by_path.is_none())
        );
    }
}
