//! `cargo xtask hw-nas-bench`: latencies of the FBNet space of HW-NAS-Bench as files that `nasbn latency --import` reads.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path as FsPath,
};

use anyhow::{Context, Result, ensure};

/// Layers of the space.
const LAYERS: usize = 22;
/// Operators of a layer.
const OPERATORS: usize = 9;

/// Latencies of one device: of the all-skip network, and of operators over skip by layer and name, milliseconds.
#[derive(Debug, Default)]
struct Lut {
    base: Option<String>,
    over_skip: BTreeMap<(usize, String), String>,
}

/// Reads `fbnet_lut.csv` and `fbnet_e2e_dev.csv` in `from` and writes `blocks-DEVICE.csv` for every device of the first and
/// `networks-COLUMN.csv` for every column of the second into `to`.
///
/// # Errors
/// If a file cannot be read or written, or the table of a device is not whole.
pub fn run(from: &FsPath, to: &FsPath) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let file = from.join("fbnet_lut.csv");
    for (device, lut) in luts(&file).with_context(|| file.display().to_string())? {
        let out = to.join(format!("blocks-{device}.csv"));
        let mut writer = csv::Writer::from_path(&out).with_context(|| out.display().to_string())?;
        writer.write_record(["layer", "operator", "latency_ms"])?;
        let base = lut.base.with_context(|| format!("{device} has no line `base`"))?;
        writer.write_record(["base", "", &base])?;
        ensure!(lut.over_skip.len() == LAYERS * OPERATORS, "{device} has {} of 198 operators", lut.over_skip.len());
        for ((layer, operator), ms) in &lut.over_skip {
            writer.write_record([&layer.to_string(), operator, ms])?;
        }
        writer.flush()?;
        println!("{}", out.display());
    }
    let file = from.join("fbnet_e2e_dev.csv");
    networks(&file, to).with_context(|| file.display().to_string())
}

fn luts(file: &FsPath) -> Result<BTreeMap<String, Lut>> {
    let mut reader = csv::Reader::from_path(file)?;
    let headers = reader.headers()?.clone();
    let column = |name: &str| headers.iter().position(|h| h == name).with_context(|| format!("no column `{name}`"));
    let columns = [column("device")?, column("layer_type")?, column("layers")?, column("op")?, column("over_skip_ms")?];
    let mut luts: BTreeMap<String, Lut> = BTreeMap::new();
    for record in reader.records() {
        let record = record?;
        let [device, kind, layers, operator, ms] = columns.map(|i| record.get(i).unwrap_or_default().to_owned());
        let lut = luts.entry(device).or_default();
        if kind == "base" {
            lut.base = Some(ms);
            continue;
        }
        for layer in layers.split(';') {
            let layer: usize = layer.parse().with_context(|| format!("layer `{layer}`"))?;
            ensure!(layer < LAYERS, "layer {layer} is not one of {LAYERS}");
            let double = lut.over_skip.insert((layer, operator.clone()), ms.clone());
            ensure!(double.is_none(), "{operator} of layer {layer} stands twice");
        }
    }
    Ok(luts)
}

fn networks(file: &FsPath, to: &FsPath) -> Result<()> {
    let mut reader = csv::Reader::from_path(file)?;
    let headers = reader.headers()?.clone();
    let path = headers.iter().position(|h| h == "ops").context("no column `ops`")?;
    let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
    for (column, name) in headers.iter().enumerate().filter(|(_, name)| name.ends_with("_ms")) {
        let out = to.join(format!("networks-{}.csv", name.trim_end_matches("_ms")));
        let mut writer = csv::Writer::from_writer(File::create(&out).with_context(|| out.display().to_string())?);
        writer.write_record(["path", "latency_ms"])?;
        for row in &rows {
            writer.write_record([row.get(path).unwrap_or_default(), row.get(column).unwrap_or_default()])?;
        }
        writer.flush()?;
        println!("{}", out.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_a_type_share_its_latency_and_half_tables_are_refused() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let head = "device,layer_type,layers,h,w,cin,cout,stride,op,expansion,kernel,groups,over_skip_ms\n";
        let mut text = format!("{head}board,base,all,32,32,3,100,1,all-skip network,0,0,0,2.5\n");
        for operator in 0..OPERATORS {
            text += &format!("board,0,0,32,32,16,16,1,op{operator},1,3,1,0.{operator}\n");
            let others: Vec<String> = (1..LAYERS).map(|layer| layer.to_string()).collect();
            text += &format!("board,1,{},32,32,16,16,1,op{operator},1,3,1,1.{operator}\n", others.join(";"));
        }
        fs::write(dir.path().join("fbnet_lut.csv"), &text)?;
        let ops = vec!["8"; LAYERS].join("-");
        fs::write(dir.path().join("fbnet_e2e_dev.csv"), format!("index,ops,gpu_b1_ms\n1,{ops},3.25\n"))?;
        let out = dir.path().join("out");
        run(dir.path(), &out)?;
        let blocks = fs::read_to_string(out.join("blocks-board.csv"))?;
        assert_eq!(blocks.lines().count(), 2 + LAYERS * OPERATORS);
        assert!(
            blocks.contains("base,,2.5\n") && blocks.contains("\n0,op3,0.3\n") && blocks.contains("\n21,op8,1.8\n")
        );
        assert_eq!(fs::read_to_string(out.join("networks-gpu_b1.csv"))?, format!("path,latency_ms\n{ops},3.25\n"));
        fs::write(dir.path().join("fbnet_lut.csv"), text.lines().take(5).collect::<Vec<_>>().join("\n"))?;
        assert!(run(dir.path(), &out).is_err_and(|error| format!("{error:#}").contains("of 198 operators")));
        Ok(())
    }
}
