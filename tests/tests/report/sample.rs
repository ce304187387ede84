//! Reports of searches with numbers as a small board gives them.

use nasbn_runtime::{
    board::{Board, Cores, CpuPolicy, Gpu, NamedMode, PowerMode, Zone, power::RailReading},
    indicators::catalogue::Direction,
    latency::{Conditions, PredictionError, Statistic, Timing},
    report::{
        BlockOfWinner, BudgetLimits, LayerShares, MeasuredNetwork, PartOfScore, PointOfFront, SCHEMA, SearchReport,
        TableSummary,
    },
    search::{FoundBy, Method, finalists::Margins},
    validation::Validation,
};

pub const OPERATORS: [&str; 7] = ["identity", "mb3k3", "mb6k3", "mb3k5", "mb6k5", "mb3k7", "mb6k7"];
/// Latency that winners may have.
const BUDGET_MS: f64 = 8.5;
/// Channels, and height and width, of the layers that a path decides.
const STAGES: [(u32, u32, usize); 6] = [(24, 56, 4), (40, 28, 4), (80, 14, 4), (96, 14, 4), (192, 7, 4), (320, 7, 1)];
/// What is markup, a quote or an end of an element somewhere.
pub const HOSTILE: &str =
    "</script><script>console.error('got in')</script>&amp;\"'<!-- ]]> $(touch x) `id` \\ \u{1} \n é";

/// Numbers between 0 and 1, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Per layer: channels, size, and whether the identity is a candidate.
fn layers() -> impl Iterator<Item = (u32, u32, bool)> {
    STAGES.iter().flat_map(|&(channels, size, repeat)| (0..repeat).map(move |r| (channels, size, r > 0)))
}

fn macs(operator: usize, channels: u32, size: u32) -> u64 {
    let (expansion, kernel) = [(0, 0), (3, 3), (6, 3), (3, 5), (6, 5), (3, 7), (6, 7)][operator];
    u64::from(size * size * channels * expansion) * u64::from(2 * channels + kernel * kernel)
}

fn choices(path: &str) -> Vec<usize> {
    path.bytes().map(|b| usize::from(b - b'0')).collect()
}

fn random_path(numbers: &mut Numbers) -> String {
    layers()
        .map(|(.., identity)| {
            let operator = if identity { numbers.next() * 7.0 } else { 1.0 + numbers.next() * 6.0 };
            char::from(b'0' + operator as u8)
        })
        .collect()
}

pub fn network(path: &str, found_by: FoundBy, numbers: &mut Numbers) -> MeasuredNetwork {
    let of_layer = |((channels, size, _), operator): ((u32, u32, bool), usize)| macs(operator, channels, size);
    let macs = 25_000_000 + layers().zip(choices(path)).map(of_layer).sum::<u64>();
    let predicted_ms = 0.9 + macs as f64 * 2.1e-8;
    let median = predicted_ms * (0.97 + 0.06 * numbers.next());
    let runs: Vec<u64> = (0..60).map(|_| (1e6 * median * (0.985 + 0.05 * numbers.next().powi(2))) as u64).collect();
    let found = if found_by == FoundBy::RandomSearch { 0.1 } else { 0.32 };
    let score = found + 0.34 * (macs as f64 / 1.6e8).sqrt().min(1.6) + 0.12 * numbers.next();
    let latency = Timing::of(&runs).unwrap();
    MeasuredNetwork {
        path: path.to_owned(),
        found_by,
        within_budget: latency.median_ms <= BUDGET_MS,
        score,
        fitted_score: score + 0.04 * (numbers.next() - 0.5),
        ranks: (0..3).map(|_| score + 0.3 * (numbers.next() - 0.5)).collect(),
        predicted_ms,
        energy_mj: Some(latency.median_ms * 5.37),
        latency,
        macs,
        params: macs / 70,
        depth: 2 + choices(path).iter().filter(|&&operator| operator > 0).count() as u32,
        peak_activation_bytes: 1_204_224,
        validation: None,
    }
}

fn board(warmer: f64) -> Board {
    let policy = |name: &str| CpuPolicy {
        name: name.to_owned(),
        governor: Some("schedutil".to_owned()),
        current_khz: Some(1_510_400),
        min_khz: Some(115_200),
        max_khz: Some(1_510_400),
        highest_khz: Some(1_510_400),
    };
    let zone = |name: &str, celsius: f64| Zone { name: name.to_owned(), celsius: Some(celsius + warmer) };
    let rail = |name: &str, milliwatts: f64, in_total| RailReading { name: name.to_owned(), milliwatts, in_total };
    let mode = |id, name: &str| NamedMode { id, name: name.to_owned() };
    Board {
        processor: None,
        accelerators: Vec::new(),
        model: Some("NVIDIA Jetson Orin Nano Developer Kit".to_owned()),
        l4t: Some("R36.4.3".to_owned()),
        jetpack: Some("6.2".to_owned()),
        kernel: Some("5.15.148-tegra".to_owned()),
        power_mode: Some(PowerMode {
            id: 0,
            name: Some("15W".to_owned()),
            available: vec![mode(0, "15W"), mode(1, "25W"), mode(2, "MAXN_SUPER")],
        }),
        cores: Some(Cores { online: 6, present: Some(6) }),
        cpu: vec![policy("policy0"), policy("policy4")],
        gpu: Some(Gpu {
            name: "17000000.gpu".to_owned(),
            governor: Some("nvhost_podgov".to_owned()),
            current_hz: Some(306_000_000),
            min_hz: Some(306_000_000),
            max_hz: Some(612_000_000),
            highest_hz: Some(1_020_000_000),
        }),
        thermal: vec![zone("cpu-thermal", 47.1), zone("gpu-thermal", 46.3), zone("tj-thermal", 47.9)],
        memory_bytes: Some(7_990_411_264),
        rails: vec![rail("VDD_IN", 5372.0 + warmer, true), rail("VDD_CPU_GPU_CV", 1190.0, false)],
        total_milliwatts: Some(5372.0 + warmer),
        notes: vec!["sys/class/thermal/thermal_zone4/temp cannot be read: Resource temporarily unavailable".to_owned()],
    }
}

/// A search that went well.
pub fn report() -> SearchReport {
    let mut numbers = Numbers(7);
    let paths = ["142031204120213041201", "162041204140413041203", "142031214120413042201", "302010304120213041201"];
    let mut finalists: Vec<_> = paths.iter().map(|path| network(path, FoundBy::Evolution, &mut numbers)).collect();
    finalists.extend((0..6).map(|_| {
        let path = random_path(&mut numbers);
        network(&path, FoundBy::Evolution, &mut numbers)
    }));
    let random: Vec<_> = (0..10)
        .map(|_| {
            let path = random_path(&mut numbers);
            network(&path, FoundBy::RandomSearch, &mut numbers)
        })
        .collect();
    let best = |all: &[MeasuredNetwork]| {
        let kept = all.iter().filter(|network| network.within_budget);
        kept.max_by(|a, b| a.score.total_cmp(&b.score)).cloned()
    };
    let checked = |accuracy| Some(Validation { loss: 1.4042, accuracy, images: 2000 });
    let winner = MeasuredNetwork { validation: checked(0.6135), ..best(&finalists).unwrap() };
    let random_search = best(&random).map(|network| MeasuredNetwork { validation: checked(0.587), ..network });
    let block = |layer, operator: &str, output, macs: u64| BlockOfWinner {
        layer,
        operator: operator.to_owned(),
        output,
        macs,
        latency_ms: (macs > 0).then_some(0.02 + macs as f64 * 2e-8),
    };
    let mut blocks =
        vec![block(None, "stem", [32, 112, 112], 10_838_016), block(None, "mb1k3", [16, 112, 112], 9_633_792)];
    blocks.extend(layers().zip(choices(&winner.path)).enumerate().map(|(l, ((channels, size, _), operator))| {
        block(Some(l), OPERATORS[operator], [channels, size, size], macs(operator, channels, size))
    }));
    blocks.push(block(None, "head", [10, 1, 1], 20_083_200));
    let operators = layers().zip(choices(&winner.path)).enumerate().map(|(l, ((.., identity), operator))| {
        let candidates = if identity { &OPERATORS[..] } else { &OPERATORS[1..] };
        let mut counts: Vec<f64> = candidates.iter().map(|_| (numbers.next() * 9.0).floor()).collect();
        counts[operator - usize::from(!identity)] += 12.0;
        let all: f64 = counts.iter().sum();
        LayerShares {
            layer: format!("layer{:02}", l + 2),
            shares: candidates.iter().zip(&counts).map(|(name, count)| ((*name).to_owned(), count / all)).collect(),
            winner: OPERATORS[operator].to_owned(),
        }
    });
    let operators: Vec<_> = operators.collect();
    let front: Vec<PointOfFront> = (0..24)
        .map(|i| {
            let x = f64::from(i) / 23.0;
            let (predicted_ms, fitted_score) = (3.4 + 5.1 * x, 0.42 + 0.48 * x.sqrt());
            PointOfFront { path: random_path(&mut numbers), fitted_score, predicted_ms }
        })
        .collect();
    let pair = |numbers: &mut Numbers| {
        let predicted = 2.2 + 7.0 * numbers.next();
        (predicted, predicted * (0.95 + 0.1 * numbers.next()))
    };
    let error = |mape, kendall_tau| {
        Some(PredictionError { networks: 64, mape, bias: -0.004, within_5: 0.984_375, within_10: 1.0, kendall_tau })
    };
    let command = "nasbn search --bundle bundle --checkpoint run/final --latency orin.lat --budget 8.5ms --out found \
                   --finalists 10 --seed 0";
    SearchReport {
        schema: SCHEMA,
        generator: "nasbn 0.1.0".to_owned(),
        command: command.split(' ').map(str::to_owned).collect(),
        space: "mobilenet".to_owned(),
        seed: 0,
        objective: "composite".to_owned(),
        direction: Direction::Higher,
        decided_by_measurement: true,
        parts: [("gamma-mean", 0.5), ("ntk-condition", 0.2), ("uncertainty-mutual-information", 0.3)]
            .map(|(indicator, weight)| PartOfScore { indicator: indicator.to_owned(), weight })
            .into(),
        limits: BudgetLimits {
            latency_ms: BUDGET_MS,
            energy_mj: Some(50.0),
            macs: None,
            params: Some(6_000_000),
            memory_bytes: None,
        },
        method: Method::Evolution,
        margins: Margins { latency: 1.04, energy: 1.1 },
        looked_at: 20_000,
        measured: finalists.len() + random.len(),
        winner,
        blocks,
        random_search,
        finalists,
        random,
        front,
        operators,
        conditions: conditions(),
        throttled_rounds: 0,
        report_images: 2000,
        table: TableSummary {
            conditions: conditions(),
            placement: None,
            statistic: Statistic::Median,
            error_of_sums: error(0.1129, 0.941),
            error: error(0.0213, 0.957),
            checked: (0..64).map(|_| pair(&mut numbers)).collect(),
        },
        before: board(0.0),
        after: board(6.25),
        files: ["winner.onnx", "winner.safetensors", "winner.json", "pareto.csv", "result.json", "report.html"]
            .map(str::to_owned)
            .into(),
    }
}

fn conditions() -> Conditions {
    Conditions {
        space: "mobilenet".to_owned(),
        bundle: "9f2c1e7ab0d34c5586f1a7720c9de1b3a5f0862d4d17c9be55a1f6e0337c2d48".to_owned(),
        device: "NVIDIA Jetson Orin Nano Developer Kit".to_owned(),
        power_mode: Some("15W".to_owned()),
        clocks: Some("policy0 performance to 1510 MHz, 17000000.gpu performance to 624 MHz".to_owned()),
        provider: "cpu".to_owned(),
        precision: "fp32".to_owned(),
        batch: 1,
        threads: 2,
        onnxruntime: "1.23.2".to_owned(),
    }
}

/// The same with every text hostile.
pub fn hostile() -> SearchReport {
    let mut report = report();
    let bad = || HOSTILE.to_owned();
    report.generator = bad();
    report.command.extend([
        bad(),
        "it's".to_owned(),
        String::new(),
        "a b".to_owned(),
        "--out".to_owned(),
        "$HOME/*".to_owned(),
    ]);
    (report.space, report.objective) = (bad(), bad());
    report.parts[0].indicator = bad();
    report.blocks[3].operator = bad();
    report.operators[0].layer = bad();
    report.operators[0].shares[1].0 = bad();
    report.operators[1].winner = bad();
    report.files.push(bad());
    for conditions in [&mut report.conditions, &mut report.table.conditions] {
        (conditions.bundle, conditions.device) = (bad(), bad());
        (conditions.provider, conditions.precision) = (bad(), bad());
        (conditions.onnxruntime, conditions.power_mode) = (bad(), Some(bad()));
    }
    report.winner.path = bad();
    report.random[0].path = bad();
    for board in [&mut report.before, &mut report.after] {
        (board.model, board.kernel, board.l4t, board.jetpack) = (Some(bad()), Some(bad()), Some(bad()), Some(bad()));
        (board.thermal[0].name, board.rails[0].name, board.cpu[0].governor) = (bad(), bad(), Some(bad()));
        board.notes = vec![bad()];
    }
    report
}

/// The same where nothing is known that need not be, and numbers are none or extreme.
pub fn bare() -> SearchReport {
    let mut report = report();
    (report.before, report.after) = (Board::default(), Board::default());
    (report.table.error, report.table.error_of_sums, report.table.checked) = (None, None, Vec::new());
    (report.random_search, report.parts, report.front) = (None, Vec::new(), Vec::new());
    (report.winner.validation, report.winner.energy_mj) = (None, None);
    (report.winner.score, report.winner.fitted_score) = (f64::NAN, f64::INFINITY);
    report.winner.predicted_ms = 1e300;
    for network in report.finalists.iter_mut().chain(&mut report.random) {
        (network.score, network.energy_mj) = (f64::NAN, None);
        network.latency.p95_ms = f64::INFINITY;
        network.ranks.clear();
    }
    for block in &mut report.blocks {
        block.latency_ms = None;
    }
    report.operators[0].shares[0].1 = f64::NAN;
    report
}
