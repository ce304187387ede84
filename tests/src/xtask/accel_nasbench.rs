//! `cargo xtask accel-nasbench`: networks of Accel-NASBench as paths of the space `mnasnet`, with their accuracy.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    path::Path as FsPath,
};

use anyhow::{Context, Result, bail, ensure};
use nasbn_models::{
    BnPlacement, Path, Supernet, sample,
    spec::{self, SpaceOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Layers that the space has for each block.
const LAYERS: [usize; 7] = [3, 3, 3, 3, 3, 4, 3];
/// What the rows must have.
const COLUMNS: [&str; 7] = ["expand", "kernel", "layers", "se", "val_top1", "macs_m", "params_m"];

/// One architecture.
#[derive(Clone, Debug, PartialEq)]
struct Network {
    path: String,
    /// Of every row that has this architecture, percent.
    val_top1: Vec<f64>,
    /// As they stand in the file.
    macs_m: String,
    params_m: String,
}

/// Writes `path,val_top1,macs_m,params_m` of the networks in `from`, of `rows` drawn at random if given.
///
/// # Errors
/// If a file cannot be read or written, or a row is no network of the space; the error names its line.
pub fn run(from: &FsPath, to: &FsPath, rows: Option<usize>, seed: u64) -> Result<()> {
    let text = File::open(from).with_context(|| from.display().to_string())?;
    let networks = read(text).with_context(|| from.display().to_string())?;
    let all = networks.len();
    let chosen = choose(networks, rows, seed)?;
    let out = File::create(to).with_context(|| to.display().to_string())?;
    write(&chosen, out).with_context(|| to.display().to_string())?;
    println!("{}: {} of {all} different networks", to.display(), chosen.len());
    Ok(())
}

fn space() -> Result<Supernet> {
    let text = spec::builtin("mnasnet").context("the space mnasnet is built in")?;
    let options = SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };
    Ok(spec::parse(text, "mnasnet", &options)?)
}

/// Every architecture once, in the order of its first row.
fn read(from: impl Read) -> Result<Vec<Network>> {
    let space = space()?;
    let mut reader = csv::Reader::from_reader(from);
    let headers = reader.headers()?.clone();
    let mut columns = [0; COLUMNS.len()];
    for (column, name) in columns.iter_mut().zip(COLUMNS) {
        *column = headers.iter().position(|h| h == name).with_context(|| format!("there is no column `{name}`"))?;
    }
    let mut networks: Vec<Network> = Vec::new();
    let mut known = BTreeMap::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |i: usize| record.get(columns[i]).unwrap_or_default();
        let path = path(&space, [0, 1, 2, 3].map(field)).with_context(|| format!("line {line}"))?;
        let accuracy: f64 = field(4).parse().with_context(|| format!("line {line}: val_top1 `{}`", field(4)))?;
        ensure!(accuracy.is_finite(), "line {line}: val_top1 `{accuracy}` is not finite");
        let (macs_m, params_m) = (field(5).to_owned(), field(6).to_owned());
        let i = *known.entry(path.clone()).or_insert(networks.len());
        match networks.get_mut(i) {
            Some(network) => {
                let equal = network.macs_m == macs_m && network.params_m == params_m;
                ensure!(equal, "line {line}: the network {path} had other costs in an earlier row");
                network.val_top1.push(accuracy);
            }
            None => networks.push(Network { path, val_top1: vec![accuracy], macs_m, params_m }),
        }
    }
    Ok(networks)
}

/// Text of the path of a row: every layer of a block has its operator, identities fill the rest.
fn path(space: &Supernet, fields: [&str; 4]) -> Result<String> {
    let [expand, kernel, layers, se] = fields.map(|field| field.split('-').collect::<Vec<_>>());
    for (name, values) in COLUMNS.iter().zip([&expand, &kernel, &layers, &se]) {
        ensure!(
            values.len() == LAYERS.len(),
            "`{name}` has {} values; there are {} blocks",
            values.len(),
            LAYERS.len()
        );
    }
    let mut choices = Vec::new();
    for (b, most) in LAYERS.into_iter().enumerate() {
        let gate = match se[b] {
            "0" => "",
            "1" => "se",
            other => bail!("block {b}: squeeze-excitation is 0 or 1, not `{other}`"),
        };
        let block = format!("mb{}k{}{gate}", expand[b], kernel[b]);
        let count = layers[b].parse().ok().filter(|count| (1..=most).contains(count));
        let count = count.with_context(|| format!("block {b}: there are 1 to {most} layers, not `{}`", layers[b]))?;
        for layer in 0..most {
            let name = if layer < count { &block } else { "identity" };
            let choice = space.choices.get(choices.len()).context("the space has a choice for every layer")?;
            let named = |&operator: &u8| space.operators[usize::from(operator)].name == name;
            let candidate = choice.candidates.iter().position(named);
            let candidate = candidate.with_context(|| format!("block {b}: the space has no operator `{name}`"))?;
            choices.push(u8::try_from(candidate)?);
        }
    }
    let path = Path::new(&choices).context("the path is too long")?;
    Ok(space.format_path(&path))
}

/// `rows` networks drawn without replacement, in their old order; all of them without `rows`.
fn choose(networks: Vec<Network>, rows: Option<usize>, seed: u64) -> Result<Vec<Network>> {
    let rows = rows.unwrap_or(networks.len());
    ensure!(rows <= networks.len(), "{rows} networks were asked for; there are {}", networks.len());
    let mut order: Vec<usize> = (0..networks.len()).collect();
    sample::shuffle(&mut ChaCha8Rng::seed_from_u64(seed), &mut order);
    order.truncate(rows);
    order.sort_unstable();
    Ok(order.into_iter().filter_map(|i| networks.get(i).cloned()).collect())
}

/// A row a network. Where several rows of the source had it, their mean accuracy.
fn write(networks: &[Network], to: impl Write) -> Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(["path", "val_top1", "macs_m", "params_m"])?;
    for Network { path, val_top1, macs_m, params_m } in networks {
        let mean = val_top1.iter().sum::<f64>() / val_top1.len() as f64;
        writer.write_record([path, &mean.to_string(), macs_m, params_m])?;
    }
    Ok(writer.flush()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The first published row, a made-up one with every extreme, and the first again.
    const ROWS: &str = "\
        index,expand,kernel,layers,se,val_top1,val_top5,macs_m,params_m\n\
        2,4-4-1-1-6-4-4,5-3-3-5-3-5-3,3-1-1-2-1-3-2,0-0-0-0-0-0-0,60,83.252,426.06,3.8534\n\
        3,6-6-6-6-6-6-6,5-5-5-5-5-5-5,3-3-3-3-3-4-3,1-1-1-1-1-1-1,65.5,83,900,9\n\
        4,4-4-1-1-6-4-4,5-3-3-5-3-5-3,3-1-1-2-1-3-2,0-0-0-0-0-0-0,61,83.252,426.06,3.8534\n";

    fn error(from: &str, to: &str) -> String {
        assert!(ROWS.contains(from), "{from}");
        format!("{:#}", read(ROWS.replace(from, to).as_bytes()).unwrap_err())
    }

    #[test]
    fn a_row_becomes_a_path_and_equal_ones_their_mean() {
        let networks = read(ROWS.as_bytes()).unwrap();
        let mut written = Vec::new();
        write(&networks, &mut written).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "path,val_top1,macs_m,params_m\n\
             7-7-7-5-0-0-1-0-0-3-3-0-9-0-0-7-7-7-0-5-5-0,60.5,426.06,3.8534\n\
             12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12-12,65.5,900,9\n"
        );
    }

    #[test]
    fn what_is_no_network_of_the_space_is_told_with_its_line() {
        for (from, to, words) in [
            ("layers", "layer", "there is no column `layers`"),
            ("6-6-6-6-6-6-6", "6-6-6-6-6-6-3", "line 3: block 6: the space has no operator `mb3k5se`"),
            ("6-6-6-6-6-6-6", "6-6-6-6-6-6", "line 3: `expand` has 6 values; there are 7 blocks"),
            ("3-3-3-3-3-4-3", "3-3-4-3-3-4-3", "line 3: block 2: there are 1 to 3 layers, not `4`"),
            ("3-3-3-3-3-4-3", "3-3-3-3-3-0-3", "line 3: block 5: there are 1 to 4 layers, not `0`"),
            ("1-1-1-1-1-1-1", "1-1-1-2-1-1-1", "line 3: block 3: squeeze-excitation is 0 or 1, not `2`"),
            ("65.5", "NaN", "line 3: val_top1 `NaN` is not finite"),
            ("65.5", "", "line 3: val_top1 ``"),
            ("61,83.252,426.06", "61,83.252,426.07", "line 4: the network 7-7-7-5-0-0"),
        ] {
            let said = error(from, to);
            assert!(said.starts_with(words), "{said}");
        }
    }

    #[test]
    fn the_choice_is_a_function_of_the_seed_and_keeps_the_order() {
        let network = |i: u32| Network {
            path: i.to_string(),
            val_top1: vec![f64::from(i)],
            macs_m: String::new(),
            params_m: String::new(),
        };
        let all: Vec<_> = (0..40).map(network).collect();
        let chosen = choose(all.clone(), Some(10), 7).unwrap();
        assert_eq!(chosen.len(), 10);
        assert!(chosen.windows(2).all(|pair| pair[0].val_top1 < pair[1].val_top1));
        assert_eq!(choose(all.clone(), Some(10), 7).unwrap(), chosen);
        assert_ne!(choose(all.clone(), Some(10), 8).unwrap(), chosen);
        assert_eq!(choose(all.clone(), None, 7).unwrap(), all);
        let said = choose(all, Some(41), 0).unwrap_err().to_string();
        assert_eq!(said, "41 networks were asked for; there are 40");
    }
}
