//! How long a look into a full arena takes, what it misses, and how much memory a vector takes. Run
//! it with `--release`; one JSON line.
//!
//! ```text
//! semantic_scan [FILE]     rows of 384 little-endian f32, embeddings of texts; else made up
//! ```
//!
//! A hundred thousand rows are made of the embeddings: mixtures of two, and some noise. Seven of
//! ten queries are a row, moved by up to a cosine of 0.95; the others are mixtures that nobody
//! stored. Noise is made of differences between embeddings, for those of texts do not differ by
//! white noise. Time is the thread's own, for others run on this machine too.

#![expect(clippy::print_stdout, reason = "standard output is where a benchmark's result belongs")]

use std::{env, error::Error, fs, hint::black_box, thread, time::Instant};

use fastrand::Rng;
use nearhop_edge_cache::semantic::{Arena, Vector};

const DIMENSIONS: usize = 384;
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const QUERIES: usize = 2_000;
const CLUSTERS: usize = 4_000;
const NEAR: f32 = 0.95;
/// What a cosine of 0.9 and above may be off by for values in 8 bits.
const EXACT_TO: f32 = 0.001;

type Row = Vec<f32>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Rng::with_seed(1);
    let file = env::args().nth(1);
    let texts = match &file {
        Some(file) => read(&fs::read(file)?),
        None => clusters(&mut random),
    };
    let mut rows: Vec<Row> = texts.iter().take(SIZES[2] / 2).cloned().collect();
    random.shuffle(&mut rows);
    let more = SIZES[2] - rows.len();
    rows.extend((0..more).map(|_| mixture(&texts, &mut random)));
    let results: Vec<_> = SIZES.iter().map(|n| measure(&rows[..*n], &texts, &mut random)).collect();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{{\"embeddings\":\"{}\",\"load_average\":\"{}\",\"sizes\":[{}]}}",
        file.map_or_else(|| "made up".to_owned(), |_| format!("{} of texts", texts.len())),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        results.join(",")
    );
    Ok(())
}

fn measure(rows: &[Row], texts: &[Row], random: &mut Rng) -> String {
    let queries: Vec<Row> = (0..QUERIES)
        .map(|query| match query % 10 {
            0..7 => {
                let row = &rows[random.usize(..rows.len())];
                moved(row, NEAR + (1.0 - NEAR) * random.f32(), texts, random)
            }
            _ => mixture(texts, random),
        })
        .collect();
    let vector = |row: &Row| Vector::new(row, DIMENSIONS).expect("a row has a direction");

    let resident = resident_bytes();
    let mut arena = Arena::new(DIMENSIONS);
    let start = cpu_ns();
    for (id, row) in (0..).zip(rows) {
        arena.insert(id, &vector(row)).expect("all have the same dimensions");
    }
    let build_s = (cpu_ns() - start) as f64 / 1e9;
    let resident = resident_bytes().saturating_sub(resident);

    let mut times_ns = Vec::new();
    let mut found = Vec::new();
    for query in &queries {
        let query = vector(query);
        let start = cpu_ns();
        let nearest = black_box(arena.nearest(&query, 4));
        times_ns.push(cpu_ns() - start);
        found.push(nearest[0]);
    }
    let mut readings_ns = Vec::new();
    for _ in 0..500 {
        let start = cpu_ns();
        readings_ns.push(cpu_ns() - start);
    }

    let (mut all, mut near, mut error_max) = (Recall::default(), Recall::default(), 0.0_f32);
    for ((query, (id, similarity)), best) in queries.iter().zip(found).zip(truth(rows, &queries)) {
        let row = usize::try_from(id).expect("ids are rows");
        let cosine = dot(query, &rows[row]);
        error_max = error_max.max((cosine - similarity).abs());
        all.count(cosine, best);
        if best >= NEAR {
            near.count(cosine, best);
        }
    }
    let n = rows.len();
    format!(
        "{{\"n\":{n},\"build_cpu_s\":{build_s:.3},\"cpu_us_p50\":{:.1},\"cpu_us_p99\":{:.1},\
         \"of_it_reading_the_clock_us\":{:.1},\"recall\":{},\"recall_near\":{},\
         \"cosine_error_max\":{error_max:.5},\"bytes_per_vector\":{:.1},\
         \"resident_bytes_per_vector\":{:.1}}}",
        percentile(&mut times_ns, 50) as f64 / 1e3,
        percentile(&mut times_ns, 99) as f64 / 1e3,
        percentile(&mut readings_ns, 50) as f64 / 1e3,
        all.json(),
        near.json(),
        arena.bytes() as f64 / n as f64,
        resident as f64 / n as f64,
    )
}

/// How often the nearest was found.
#[derive(Default)]
struct Recall {
    queries: usize,
    the_nearest: usize,
    as_near: usize,
}

impl Recall {
    fn count(&mut self, found: f32, best: f32) {
        self.queries += 1;
        self.the_nearest += usize::from(found >= best);
        self.as_near += usize::from(found >= best - EXACT_TO);
    }

    fn json(&self) -> String {
        let share = |count: usize| count as f64 / self.queries.max(1) as f64;
        format!(
            "{{\"queries\":{},\"at_1\":{:.4},\"within_{EXACT_TO}\":{:.4}}}",
            self.queries,
            share(self.the_nearest),
            share(self.as_near)
        )
    }
}

fn read(bytes: &[u8]) -> Vec<Row> {
    let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    numbers.collect::<Row>().chunks_exact(DIMENSIONS).map(|row| unit(row.to_vec())).collect()
}

fn clusters(random: &mut Rng) -> Vec<Row> {
    let centres: Vec<_> = (0..CLUSTERS / 8).map(|_| white(random)).collect();
    (0..CLUSTERS).map(|row| sum(&centres[row % centres.len()], 0.7, &white(random), 0.7)).collect()
}

fn white(random: &mut Rng) -> Row {
    // A sum of uniform numbers is bell-shaped enough.
    unit((0..DIMENSIONS).map(|_| (0..4).map(|_| random.f32() - 0.5).sum()).collect())
}

/// In a direction in which embeddings differ.
fn noise(texts: &[Row], random: &mut Rng) -> Row {
    let mut noise = white(random).iter().map(|value| value * 0.2).collect::<Row>();
    for at in 0..6 {
        let sign = if at % 2 == 0 { 1.0 } else { -1.0 };
        noise = sum(&noise, 1.0, &texts[random.usize(..texts.len())], sign);
    }
    noise
}

fn mixture(texts: &[Row], random: &mut Rng) -> Row {
    let (a, b) = (random.usize(..texts.len()), random.usize(..texts.len()));
    let share = 0.5 + random.f32() / 2.0;
    moved(&sum(&texts[a], share, &texts[b], 1.0 - share), 0.7 + 0.3 * random.f32(), texts, random)
}

/// A direction at this cosine from another.
fn moved(row: &Row, cosine: f32, texts: &[Row], random: &mut Rng) -> Row {
    let noise = noise(texts, random);
    let aside = sum(&noise, 1.0, row, -dot(&noise, row));
    sum(row, cosine, &aside, (1.0 - cosine * cosine).sqrt())
}

fn sum(left: &Row, of_left: f32, right: &Row, of_right: f32) -> Row {
    unit(left.iter().zip(right).map(|(left, right)| left * of_left + right * of_right).collect())
}

fn unit(row: Row) -> Row {
    let length = dot(&row, &row).sqrt();
    row.iter().map(|value| value / length).collect()
}

fn dot(left: &Row, right: &Row) -> f32 {
    let mut sums = [0.0; 16];
    for (left, right) in left.as_chunks::<16>().0.iter().zip(right.as_chunks::<16>().0) {
        for at in 0..16 {
            sums[at] += left[at] * right[at];
        }
    }
    sums.iter().sum()
}

/// The cosine of the nearest row, for each query.
fn truth(rows: &[Row], queries: &[Row]) -> Vec<f32> {
    let mut best = vec![-1.0_f32; queries.len()];
    // So few rows at a time stay in the processor's cache.
    for rows in rows.chunks(128) {
        for (best, query) in best.iter_mut().zip(queries) {
            *best = rows.iter().map(|row| dot(query, row)).fold(*best, f32::max);
        }
    }
    best
}

fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

/// What this thread has run for; where the system does not say, what has passed.
fn cpu_ns() -> u64 {
    // The kernel brings the number up to date when the thread gives way, else every few ms.
    thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = stat.and_then(|stat| stat.split(' ').next()?.parse().ok());
    ran.unwrap_or_else(passed_ns)
}

fn passed_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let now = Instant::now();
    let passed = now.duration_since(*START.get_or_init(|| now));
    u64::try_from(passed.as_nanos()).expect("it ends within centuries")
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
