//! `nasbn-targets list` and `show`.

use std::{collections::BTreeSet, io::Write, process::ExitCode};

use clap::Args;
use nasbn_targets::{
    device::{Catalog, Device, GpuLibrary, Jetpack, Provider, Source, catalog},
    library::{choose_for, pinned},
};
use serde::Serialize;

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn-targets list
  nasbn-targets list --json")]
pub struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn-targets show orin-nano
  nasbn-targets show \"NVIDIA Jetson Nano Developer Kit\"     # what stands in /proc/device-tree/model
  nasbn-targets show xavier-nx --json

Exit status: 0 done, 2 there is no such device.")]
pub struct ShowArgs {
    /// Its name, or what its board says that it is
    name: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A line of the list.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    title: &'a str,
    triple: &'a str,
    compute_capability: Option<&'a str>,
    memory_gigabytes: &'a [u32],
    jetpacks: Vec<&'a str>,
    providers: Vec<Provider>,
    glibc: String,
}

/// All of a device, with what it refers to.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    device: &'a Device,
    providers: Vec<Provider>,
    cpu_library: Option<String>,
    releases: Vec<&'a Jetpack>,
    gpu_libraries: Vec<For<'a>>,
    sources_cited: Vec<Cited<'a>>,
}

#[derive(Serialize)]
struct For<'a> {
    jetpacks: Vec<&'a str>,
    #[serde(flatten)]
    library: &'a GpuLibrary,
}

#[derive(Serialize)]
struct Cited<'a> {
    key: &'a str,
    #[serde(flatten)]
    source: &'a Source,
}

fn line<'a>(catalog: &'a Catalog, device: &'a Device) -> Line<'a> {
    Line {
        name: &device.name,
        title: &device.title,
        triple: &device.triple,
        compute_capability: device.gpu.as_ref().map(|gpu| gpu.compute_capability.as_str()),
        memory_gigabytes: device.memory.as_ref().map_or(&[], |m| &m.gigabytes),
        jetpacks: catalog.jetpacks_of(device).map(|j| j.version.as_str()).collect(),
        providers: catalog.providers(device),
        glibc: device.glibc.to_string(),
    }
}

pub fn list(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let catalog = catalog()?;
    let lines: Vec<_> = catalog.devices.iter().map(|device| line(&catalog, device)).collect();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&lines)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "{:<20} {:>5} {:>12}  {:<14} {:<18} {:<6} title",
        "name", "sm", "memory GB", "JetPack", "providers", "glibc"
    )?;
    for line in &lines {
        let sm = line.compute_capability.map_or("-".into(), |c| c.replace('.', ""));
        let memory = words(line.memory_gigabytes, "/");
        let jetpacks = match (line.jetpacks.first(), line.jetpacks.last()) {
            (Some(first), Some(last)) if first != last => format!("{first} - {last}"),
            (Some(only), _) => (*only).to_owned(),
            _ => "-".to_owned(),
        };
        let providers = words(&line.providers, ",");
        writeln!(
            out,
            "{:<20} {sm:>5} {memory:>12}  {jetpacks:<14} {providers:<18} {:<6} {}",
            line.name, line.glibc, line.title
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn show(args: &ShowArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let catalog = catalog()?;
    let device = catalog.find(&args.name)?;
    let libraries = pinned()?;
    let cpu = choose_for(&libraries, &device.triple, device.glibc).ok().map(|l| l.version.clone());
    let cited = cited(&catalog, device);
    let whole = Whole {
        device,
        providers: catalog.providers(device),
        cpu_library: cpu,
        releases: catalog.jetpacks_of(device).collect(),
        gpu_libraries: catalog
            .gpu_libraries_of(device)
            .into_iter()
            .map(|(library, jetpacks)| For { jetpacks, library })
            .collect(),
        sources_cited: cited.iter().filter_map(|key| Some(Cited { key, source: catalog.sources.get(*key)? })).collect(),
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
    } else {
        words_of(&whole, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keys of all sources of a device, in order.
fn cited<'a>(catalog: &'a Catalog, device: &'a Device) -> Vec<&'a str> {
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    keys.extend(device.parts().into_iter().flat_map(|(_, sources, _)| sources).map(String::as_str));
    keys.extend(catalog.jetpacks_of(device).flat_map(|j| &j.sources).map(String::as_str));
    keys.extend(
        catalog.jetpacks_of(device).filter_map(|j| j.alike.as_ref()).flat_map(|a| &a.sources).map(String::as_str),
    );
    keys.extend(
        catalog.gpu_libraries_of(device).into_iter().flat_map(|(library, _)| &library.sources).map(String::as_str),
    );
    keys.into_iter().collect()
}

fn words_of(whole: &Whole<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let device = whole.device;
    let mut row = |name: &str, text: &str| if text.is_empty() { Ok(()) } else { writeln!(out, "{name:<13} {text}") };
    row("device", &format!("{} ({})", device.title, device.name))?;
    row("also called", &words(&device.aliases, ", "))?;
    for text in device.models.iter().flat_map(|m| &m.texts) {
        row("says", text)?;
    }
    row("triple", &device.triple)?;
    row("glibc", &format!("{} or newer", device.glibc))?;
    if let Some(memory) = &device.memory {
        row("memory", &format!("{} GB, by variant", words(&memory.gigabytes, ", ")))?;
    }
    if let Some(gpu) = &device.gpu {
        let precisions = gpu.precisions.iter().map(|p| format!("{p:?}").to_lowercase()).collect::<Vec<_>>();
        let capability = &gpu.compute_capability;
        row("GPU", &format!("{}, compute capability {capability}, {}", gpu.architecture, words(&precisions, ", ")))?;
    }
    row("providers", &words(&whole.providers, ", "))?;
    if let Some(version) = &whole.cpu_library {
        row("CPU library", &format!("ONNX Runtime {version}, pinned; runs on all of these"))?;
    }
    for one in &whole.gpu_libraries {
        let jetpacks =
            if one.jetpacks.is_empty() { String::new() } else { format!("JetPack {}: ", words(&one.jetpacks, ", ")) };
        row("GPU library", &format!("{jetpacks}{}", one.library.text))?;
    }
    for release in &whole.releases {
        row(
            "JetPack",
            &format!(
                "{:<6} L4T {:<7} Ubuntu {} glibc {} CUDA {:<5} cuDNN {:<7} TensorRT {}",
                release.version,
                release.l4t,
                release.ubuntu,
                release.glibc,
                release.cuda,
                release.cudnn,
                release.tensorrt
            ),
        )?;
        let alike = release.versions().skip(1).collect::<Vec<_>>();
        row("", &if alike.is_empty() { String::new() } else { format!("packages as for {}", words(&alike, ", ")) })?;
    }
    if let Some(power) = &device.power {
        row("power modes", &format!("{}; measure in {}", words(&power.modes, ", "), power.best))?;
    }
    row("power mode in", &words(&device.board.power_mode, ", "))?;
    row("GPU clock in", &words(&device.board.gpu_clock, ", "))?;
    row("rails in", &words(&device.board.rails, ", "))?;
    row("total power", &words(&device.board.total_power, " + "))?;
    for (part, _, unverified) in device.parts() {
        row("not verified", &unverified.map(|what| format!("{part}: {what}")).unwrap_or_default())?;
    }
    for release in &whole.releases {
        let alike = release.alike.as_ref().and_then(|alike| alike.unverified.as_ref());
        for (of, what) in [("", release.unverified.as_ref()), (" and those alike", alike)] {
            row(
                "not verified",
                &what.map(|what| format!("JetPack {}{of}: {what}", release.version)).unwrap_or_default(),
            )?;
        }
    }
    for what in whole.gpu_libraries.iter().filter_map(|l| l.library.unverified.as_ref()) {
        row("not verified", &format!("GPU library: {what}"))?;
    }
    for cited in &whole.sources_cited {
        let url = cited.source.url.as_ref().map(|url| format!(" <{url}>")).unwrap_or_default();
        row("source", &format!("{}{url}", cited.source.title))?;
    }
    Ok(())
}

fn words(items: &[impl ToString], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}
