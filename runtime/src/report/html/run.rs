//! Limits, how to run the search again, files, and what to keep in mind.

use super::{
    figure::{code, count, figure, kibibytes, millions},
    section as framed,
};
use crate::{
    plot::escape,
    report::SearchReport,
    search::{FoundBy, Method},
};

pub fn limits(report: &SearchReport) -> String {
    let limits = &report.limits;
    let none = || "no limit".to_owned();
    let winner = &report.winner;
    let rows = [
        (
            "latency",
            format!("{} ms, median as measured", figure("limits.latency_ms", limits.latency_ms, 3)),
            format!("{} ms", figure("winner.latency.median_ms", winner.latency.median_ms, 3)),
        ),
        (
            "energy",
            limits.energy_mj.map_or_else(none, |mj| format!("{} mJ, as measured", figure("limits.energy_mj", mj, 2))),
            winner
                .energy_mj
                .map_or_else(|| "not measured".to_owned(), |mj| format!("{} mJ", figure("winner.energy_mj", mj, 2))),
        ),
        (
            "multiply-accumulates",
            limits.macs.map_or_else(none, |macs| millions("limits.macs", macs)),
            millions("winner.macs", winner.macs),
        ),
        (
            "parameters",
            limits.params.map_or_else(none, |params| millions("limits.params", params)),
            millions("winner.params", winner.params),
        ),
        (
            "peak activation memory",
            limits.memory_bytes.map_or_else(none, |bytes| kibibytes("limits.memory_bytes", bytes)),
            kibibytes("winner.peak_activation_bytes", winner.peak_activation_bytes),
        ),
    ];
    let line = |(name, limit, has): &(&str, String, String)| {
        format!("<tr><th scope=\"row\">{name}</th><td>{limit}</td><td>{has}</td></tr>\n")
    };
    let rows: String = rows.iter().map(line).collect();
    let head = "<thead><tr><th></th><th scope=\"col\">limit</th><th scope=\"col\">winner</th></tr></thead>";
    let body =
        format!("<div class=\"wide\"><table class=\"facts\">\n{head}\n<tbody>\n{rows}</tbody>\n</table></div>\n");
    framed("limits", "Limits", &body)
}

pub fn reproduce(report: &SearchReport) -> String {
    let conditions = &report.conditions;
    let facts = [
        ("seed", count("seed", report.seed)),
        ("program", escape(&report.generator)),
        ("ONNX Runtime", escape(&conditions.onnxruntime)),
        ("bundle", format!("{}, SHA-256 of its manifest {}", escape(&conditions.space), code(&conditions.bundle))),
        (
            "latency table",
            escape(&format!(
                "{}, {}, {} threads, batch {}",
                conditions.provider, conditions.precision, conditions.threads, conditions.batch
            )),
        ),
    ];
    let facts: String =
        facts.iter().map(|(name, fact)| format!("<tr><th scope=\"row\">{name}</th><td>{fact}</td></tr>\n")).collect();
    let link = |file: &String| format!("<li><a href=\"{}\">{}</a></li>\n", relative(file), escape(file));
    let files: String = report.files.iter().map(link).collect();
    let body = format!(
        "<pre id=\"command\">{}</pre>\n<div class=\"wide\"><table class=\"facts\">\n<tbody>\n{facts}</tbody>\n</table></div>\n\
         <p>The same seed proposes the same networks for the same bundle, checkpoint, data and table. Latencies are measured \
         anew, so finalists that are close to each other may change places.</p>\n<h3>Files beside this page</h3>\n\
         <ul class=\"files\">\n{files}</ul>\n",
        command(&report.command)
    );
    framed("reproduce", "How to run it again", &body)
}

/// A command line as markup, an option a line.
fn command(arguments: &[String]) -> String {
    let mut line = String::new();
    for (i, argument) in arguments.iter().enumerate() {
        line += match i {
            0 => "",
            _ if argument.starts_with("--") => " \\\n  ",
            _ => " ",
        };
        line += &escape(&shell_quoted(argument));
    }
    line
}

/// An argument as a POSIX shell reads it; control characters as bash and zsh do.
fn shell_quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    if !argument.chars().any(char::is_control) {
        return format!("'{}'", argument.replace('\'', "'\\''"));
    }
    let letter = |c: char| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        c => c.to_string(),
    };
    format!("$'{}'", argument.chars().map(letter).collect::<String>())
}

/// A file's name as a relative address.
fn relative(file: &str) -> String {
    let byte = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    format!("./{}", file.bytes().map(byte).collect::<String>())
}

pub fn notes(report: &SearchReport) -> String {
    let mut notes = Vec::new();
    match report.winner.validation {
        Some(_) => notes.push(format!(
            "Accuracy is that of the supernet's BatchNorm as the winner inherits it, statistics recalibrated, convolutions \
             random and frozen, on {} images that the search did not see. It is no forecast of the accuracy after full training.",
            count("report_images", report.report_images as u64)
        )),
        None => notes.push("No accuracy was measured.".to_owned()),
    }
    notes.push(
        match (report.winner.found_by, &report.random_search) {
            (FoundBy::RandomSearch, _) => "Random search met the winner; the search proposed no network as good.",
            (_, Some(random)) if random.path == report.winner.path => "Random search met the winner too.",
            (_, Some(_)) => "Random search, with as many measurements, did not end with the winner.",
            (_, None) => "Not one network of random search keeps the budget as measured.",
        }
        .to_owned(),
    );
    notes.push(
        if report.decided_by_measurement {
            "Tables filtered; what decided among the finalists is the score as measured on them, and their latency as measured \
             end to end on the device."
        } else {
            "The score is computed, not measured; what was measured of the finalists is their latency, end to end on the device."
        }
        .to_owned(),
    );
    notes.push(
        match report.method {
            Method::Exhaustive => "The first step looked at every network within the limits.",
            Method::List => "The first step looked at every network of the given list, and at no other.",
            Method::Evolution => {
                "The first step was evolution over canonical paths (NSGA-II): networks that it did not look at may be better."
            }
        }
        .to_owned(),
    );
    notes.extend(report.far_off().map(|words| format!("Predictions were far off: {words}.")));
    if report.limits.energy_mj.is_some() {
        let energy = "The energy limit is kept as measured at the board's power rails; as predicted by the table it only filters.";
        notes.push(energy.to_owned());
    }
    notes.push(
        "Latency is the median of many runs of the exported network; a score or latency that differs by less than its noise \
         is no difference."
            .to_owned(),
    );
    let notes: String = notes.iter().map(|note| format!("<li>{note}</li>\n")).collect();
    framed("notes", "What to keep in mind", &format!("<ul>\n{notes}</ul>\n"))
}
