//! The board's state before and after the search.

use super::section as framed;
use crate::{
    board::Board,
    plot::escape,
    report::{SearchReport, html::figure::number},
};

/// Values of a field: nothing where the board does not tell.
type Row = (String, Option<String>, Option<String>);

pub fn section(report: &SearchReport) -> String {
    let (before, after) = (&report.before, &report.after);
    let (told, untold): (Vec<Row>, Vec<Row>) =
        rows(before, after).into_iter().partition(|(_, before, after)| before.is_some() || after.is_some());
    let cell = |value: &Option<String>| {
        value.as_ref().map_or_else(|| "<span class=\"none\">–</span>".to_owned(), |v| escape(v))
    };
    let line = |(name, before, after): &Row| {
        let name = escape(name);
        if before == after {
            return format!("<tr><th scope=\"row\">{name}</th><td colspan=\"2\">{}</td></tr>\n", cell(before));
        }
        format!("<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td></tr>\n", cell(before), cell(after))
    };
    let lines: String = told.iter().map(line).collect();
    let untold: Vec<String> = untold.into_iter().map(|(name, ..)| name).collect();
    let untold = match untold.as_slice() {
        [] => String::new(),
        names => format!("<p class=\"small\">Not told by this machine: {}.</p>\n", escape(&names.join(", "))),
    };
    let head = "<thead><tr><th></th><th scope=\"col\">before</th><th scope=\"col\">after</th></tr></thead>";
    let table = match lines.as_str() {
        "" => String::new(),
        lines => {
            format!("<div class=\"wide\"><table class=\"facts\">\n{head}\n<tbody>\n{lines}</tbody>\n</table></div>\n")
        }
    };
    let body = format!(
        "{table}{untold}{}{}",
        list("Warnings", &before.warnings(), &after.warnings()),
        list("Could not be read", &before.notes, &after.notes)
    );
    framed("board", "The board", &body)
}

fn rows(before: &Board, after: &Board) -> Vec<Row> {
    let row = |name: &str, of: &dyn Fn(&Board) -> Option<String>| (name.to_owned(), of(before), of(after));
    let mut rows = vec![
        row("model", &|b| b.model.clone()),
        row("Jetson Linux", &|b| {
            let jetpack = b.jetpack.as_ref().map_or_else(String::new, |jetpack| format!(" (JetPack {jetpack})"));
            Some(format!("{}{jetpack}", b.l4t.as_ref()?))
        }),
        row("kernel", &|b| b.kernel.clone()),
        row("power mode", &|b| b.power_mode.as_ref().map(ToString::to_string)),
        row("cores", &|b| {
            let cores = b.cores?;
            let present = cores.present.map_or_else(String::new, |present| format!(" of {present}"));
            Some(format!("{}{present} online", cores.online))
        }),
        row("memory", &|b| Some(format!("{} GiB", number(b.memory_bytes? as f64 / f64::from(1 << 30), 1)))),
        row("CPU clocks", &cpu),
        row("GPU clock", &|b| {
            let gpu = b.gpu.as_ref()?;
            let clock = clock(gpu.governor.as_deref(), gpu.current_hz, (gpu.min_hz, gpu.max_hz), 1_000_000);
            Some(format!("{}: {clock}", gpu.name))
        }),
    ];
    let names = |of: &dyn Fn(&Board) -> Vec<String>| {
        let mut names = of(before);
        names.extend(of(after).into_iter().filter(|name| !of(before).contains(name)));
        names
    };
    let zones = names(&|b| b.thermal.iter().map(|zone| zone.name.clone()).collect());
    rows.extend(zones.iter().map(|name| {
        row(&format!("temperature, {name}"), &|b| {
            let zone = b.thermal.iter().find(|zone| zone.name == *name)?;
            Some(format!("{} °C", number(zone.celsius?, 1)))
        })
    }));
    let rails = names(&|b| b.rails.iter().map(|rail| rail.name.clone()).collect());
    rows.extend(rails.iter().map(|name| {
        row(&format!("power, {name}"), &|b| {
            let rail = b.rails.iter().find(|rail| rail.name == *name)?;
            Some(format!("{} mW", number(rail.milliwatts, 0)))
        })
    }));
    if zones.is_empty() {
        rows.push(("temperatures".to_owned(), None, None));
    }
    rows.push(row("power, whole board", &|b| Some(format!("{} mW", number(b.total_milliwatts?, 0)))));
    rows
}

/// Clocks of the CPU; policies that say the same stand together.
fn cpu(board: &Board) -> Option<String> {
    /// Names that are written out.
    const NAMED: usize = 4;
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for policy in &board.cpu {
        let range = (policy.min_khz, policy.max_khz);
        let clock = clock(policy.governor.as_deref(), policy.current_khz, range, 1000);
        match groups.iter_mut().find(|(same, _)| *same == clock) {
            Some((_, names)) => names.push(&policy.name),
            None => groups.push((clock, vec![&policy.name])),
        }
    }
    let group = |(clock, names): &(String, Vec<&str>)| {
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}: {clock}", names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "))
    };
    (!groups.is_empty()).then(|| groups.iter().map(group).collect::<Vec<_>>().join("; "))
}

/// What is known of a clock; `mega` of its units are a MHz.
fn clock(governor: Option<&str>, now: Option<u64>, (min, max): (Option<u64>, Option<u64>), mega: u64) -> String {
    let mut parts = Vec::new();
    parts.extend(now.map(|now| format!("{} MHz", now / mega)));
    parts.extend(governor.map(|governor| format!("governor {governor}")));
    parts.extend(min.zip(max).map(|(min, max)| format!("allowed {} to {} MHz", min / mega, max / mega)));
    if parts.is_empty() { "not told".to_owned() } else { parts.join(", ") }
}

/// What was said before the search, after it, or both times.
fn list(heading: &str, before: &[String], after: &[String]) -> String {
    let said = |text: &String, when: &str| format!("<li>{}{when}</li>\n", escape(text));
    let first =
        before.iter().map(|text| said(text, if after.contains(text) { "" } else { " <small>(before)</small>" }));
    let then = after.iter().filter(|text| !before.contains(text)).map(|text| said(text, " <small>(after)</small>"));
    let items: String = first.chain(then).collect();
    if items.is_empty() { items } else { format!("<h3>{heading}</h3>\n<ul>\n{items}</ul>\n") }
}
