//! What is said of a latency table.

use std::{collections::BTreeMap, path::Path as FsPath};

use serde_json::{Value, json};

use crate::{
    atomic,
    cli::{Failure, output},
    latency::{BlockTime, LatencyTable, Method, PredictionError, Statistic},
    provider::Provider,
};

/// The whole table as JSON.
pub fn export(file: &FsPath, table: &LatencyTable) -> Result<(), Failure> {
    write_json(file, &json!(table))
}

/// Every time as JSON, milliseconds by name.
pub fn export_times<'a>(
    file: &FsPath,
    times: impl IntoIterator<Item = (&'a String, &'a [u64])>,
) -> Result<(), Failure> {
    let ms = |times: &[u64]| times.iter().map(|&ns| ns as f64 / 1e6).collect::<Vec<f64>>();
    let all: BTreeMap<&String, Vec<f64>> = times.into_iter().map(|(name, times)| (name, ms(times))).collect();
    write_json(file, &json!({ "unit": "ms", "times": all }))
}

fn write_json(file: &FsPath, value: &Value) -> Result<(), Failure> {
    atomic::write(file, format!("{value:#}\n").as_bytes()).map_err(|e| Failure::file(file, &e))
}

/// What `--json` prints: the table without its single blocks and networks.
pub fn summary(table: &LatencyTable) -> Value {
    json!({
        "conditions": table.conditions,
        "placement": table.placement,
        "blocks": table.blocks.len(),
        "networks_in_fit": table.networks.iter().filter(|network| network.in_fit).count(),
        "throttled_rounds": table.throttled_rounds,
        "statistic": table.statistic,
        "correction": { "method": table.correction.method, "overhead_ms": table.correction.overhead_ms,
            "slope": table.correction.slope, "expected_error": table.correction.expected_error },
        "error_of_sums": table.error_of_sums,
        "error": table.error,
        "energy_error": table.energy_error,
        "before": table.before,
        "after": table.after,
    })
}

/// The table in words.
pub fn print(table: &LatencyTable) -> Result<(), Failure> {
    let c = &table.conditions;
    let mode = c.power_mode.as_ref().map_or(String::new(), |mode| format!(", {mode}"));
    output::line(format!(
        "device        {}{mode}: {}, {}, batch {}, {} threads, ONNX Runtime {}",
        c.device, c.provider, c.precision, c.batch, c.threads, c.onnxruntime
    ))?;
    if let Some(placement) = &table.placement {
        let of = if c.provider == Provider::Cpu.to_string() { "one network" } else { "one network and every block" };
        output::line(format!("placement     {placement} (of {of})"))?;
    }
    let of = |block: &BlockTime| block.timing.statistic(table.statistic);
    if !table.blocks.is_empty() {
        let slowest = table.blocks.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
        let slowest = slowest.map_or(String::new(), |b| format!(", slowest {} {:.3} ms", b.key, of(b)));
        output::line(format!("blocks        {} operators on edges{slowest}", table.blocks.len()))?;
    }
    if table.statistic != Statistic::Median {
        output::line(format!("predicted is  the {} of the run times", table.statistic))?;
    }
    let correction = &table.correction;
    let line = format!("{:.3} ms + {:.3} x the sum of blocks", correction.overhead_ms, correction.slope);
    output::line(match correction.method {
        Method::Sum => "prediction    the sum of blocks: too few networks were measured to correct it".to_owned(),
        Method::Line => format!("prediction    {line}"),
        Method::LineAndTable(ridge) => format!("prediction    {line} + a table of what remains (ridge {ridge})"),
        Method::Slopes(ridge) => {
            format!("prediction    {line}, with a slope of its own for each operator (ridge {ridge})")
        }
    })?;
    let error = |name: &str, error: &PredictionError| {
        format!(
            "{name:<13} MAPE {:.2} %, bias {:+.2} %, within 5 % {:.0} %, within 10 % {:.0} %, Kendall tau {:.3}",
            100.0 * error.mape,
            100.0 * error.bias,
            100.0 * error.within_5,
            100.0 * error.within_10,
            error.kendall_tau
        )
    };
    match (&table.error_of_sums, &table.error) {
        (Some(sums), Some(corrected)) => {
            output::line(format!("checked on    {} networks that were not in the fit", corrected.networks))?;
            output::line(error("  sums", sums))?;
            output::line(error("  corrected", corrected))?;
        }
        _ => output::line("checked on    no network")?,
    }
    if let Some(energy) = &table.energy_error {
        output::line(error("  energy", energy))?;
    }
    Ok(())
}
