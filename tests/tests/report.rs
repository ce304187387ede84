//! `report.html`: what stands in it, and what a browser makes of it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "report/browser.rs"]
mod browser;
#[path = "report/markup.rs"]
mod markup;
#[path = "report/sample.rs"]
mod sample;

use std::{fs, path::Path, process::Command};

use browser::Look;
use markup::{Element, elements, text_of};
use nasbn_runtime::{
    report::SearchReport,
    search::{FoundBy, Method},
};
use serde_json::Value;

/// Looks that the page is meant for: a desktop and a telephone, light and dark.
const LOOKS: [Look; 4] = [
    Look { dark: false, width: 1280, height: 3600 },
    Look { dark: true, width: 1280, height: 3600 },
    Look { dark: false, width: 400, height: 6000 },
    Look { dark: true, width: 400, height: 6000 },
];

/// Width of a sheet A4 without its margins, CSS pixels.
const PAPER: u32 = 718;
/// Relative error with which `serde_json` reads a number: to the last bit or the one beside.
const AS_READ: f64 = 4.0 * f64::EPSILON;

/// The figures that a page shows: the place in `result.json`, the number, its text, and what it was multiplied with.
fn figures(elements: &[Element]) -> Vec<(&str, Option<f64>, &str, f64)> {
    let figure = |element: &'_ &Element| element.attribute("data-figure").is_some();
    let all = elements.iter().filter(figure);
    all.map(|element| {
        let number = |name: &str| element.attribute(name).map(|value| value.parse::<f64>().unwrap());
        let key = element.attribute("data-figure").unwrap();
        (key, number("value"), element.text.as_str(), number("data-scale").unwrap_or(1.0))
    })
    .collect()
}

/// Asserts that figures are those of `result`, and their texts these numbers, rounded to the digits they have.
fn assert_figures(figures: &[(&str, Option<f64>, &str, f64)], result: &Value) {
    assert!(figures.len() > 200, "{}", figures.len());
    for (key, value, text, scale) in figures {
        let wanted = result.pointer(&format!("/{}", key.replace('.', "/")));
        let Some(value) = value else {
            // No number: null, or not there (a rank of an objective without parts).
            assert!(wanted.is_none_or(Value::is_null) && *text == "–", "{key}: {text}, {wanted:?}");
            continue;
        };
        let wanted = wanted.and_then(Value::as_f64).unwrap();
        assert!((wanted - value).abs() <= AS_READ * wanted.abs(), "{key}: {value} for {wanted}");
        let shown: f64 = text.parse().unwrap();
        let last_digit = match text.split_once('e') {
            Some((digits, power)) => {
                10_f64.powi(power.parse::<i32>().unwrap() + 1 - digits.trim_start_matches('-').len().min(3) as i32)
            }
            None => 10_f64.powi(-(text.split_once('.').map_or(0, |(_, decimals)| decimals.len()) as i32)),
        };
        let exact = value * scale;
        // Half of the last digit, and what binary numbers add to it.
        assert!((shown - exact).abs() <= 0.5 * last_digit + 1e-9 * exact.abs(), "{key}: {text} for {exact}");
    }
}

fn json(report: &SearchReport) -> Value {
    serde_json::from_str(&serde_json::to_string(report).unwrap()).unwrap()
}

#[test]
fn the_page_is_well_formed_and_says_what_the_result_says() {
    for report in [sample::report(), sample::hostile()] {
        let page = report.html();
        let elements = elements(&page).unwrap();
        let result: Value = serde_json::from_str(text_of(&elements, "result")).unwrap();
        assert_eq!(result, json(&report));
        let figures = figures(&elements);
        assert_figures(&figures, &result);
        for key in [
            "winner.latency.median_ms",
            "winner.latency.p95_ms",
            "winner.score",
            "winner.validation.accuracy",
            "winner.ranks.2",
            "random_search.score",
            "limits.latency_ms",
            "table.error.mape",
            "table.error.kendall_tau",
            "finalists.9.latency.median_ms",
            "random.9.score",
            "operators.20.shares.0.1",
            "seed",
        ] {
            assert!(figures.iter().any(|(figure, ..)| *figure == key), "{key}");
        }
    }
}

#[test]
fn a_figure_that_is_not_the_results_would_be_found() {
    let report = sample::report();
    let page = report.html();
    let elements = elements(&page).unwrap();
    let mut figures = figures(&elements);
    let caught = |figures: &[_], result: &Value| std::panic::catch_unwind(|| assert_figures(figures, result)).is_err();
    let mut result = json(&report);
    assert!(!caught(&figures, &result));
    let shown = figures[0].2;
    figures[0].2 = "1.000";
    assert!(caught(&figures, &result));
    figures[0].2 = shown;
    result["winner"]["latency"]["p95_ms"] = 1.0.into();
    assert!(caught(&figures, &result));
}

#[test]
fn what_is_not_well_formed_is_found() {
    for page in ["<p></p>", "<!DOCTYPE html><p><b></p>", "<!DOCTYPE html><p>", "<!DOCTYPE html><p a=\"&x;\"></p>"] {
        assert!(elements(page).is_err(), "{page}");
    }
}

#[test]
fn hostile_texts_stay_texts() {
    let report = sample::hostile();
    let page = report.html();
    let elements = elements(&page).unwrap();
    assert_eq!(elements.iter().filter(|element| element.name == "script").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    // What XML cannot hold is replaced, an end of a line is a space.
    let text = sample::HOSTILE.replace('\u{1}', "\u{fffd}").replace('\n', " ");
    let body = &elements.iter().find(|element| element.name == "main").unwrap().text;
    assert!(body.matches(&text).count() > 10);
    // Addresses lead to files beside the page.
    for link in elements.iter().filter(|element| element.name == "a") {
        let address = link.attribute("href").unwrap();
        assert!(address == "result.json" || address.starts_with("./"), "{address}");
        assert!(address.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)), "{address}");
    }
    for (element, key, value) in elements.iter().flat_map(|e| e.attributes.iter().map(move |(k, v)| (e, k, v))) {
        assert!(!key.starts_with("on") && !value.contains("http:") || key == "xmlns", "{element:?}");
    }
}

#[test]
fn the_command_line_is_what_a_shell_makes_of_the_page() {
    let report = sample::hostile();
    let page = report.html();
    let elements = elements(&page).unwrap();
    let line = text_of(&elements, "command");
    let dir = tempfile::tempdir().unwrap();
    let script = format!("printf '%s\\0' {line}");
    let ran = Command::new("bash").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    let said: Vec<String> = ran.stdout.split(|&b| b == 0).map(|a| String::from_utf8(a.to_vec()).unwrap()).collect();
    assert_eq!(said[..said.len() - 1], report.command, "{line}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_known_is_said_to_be_unknown() {
    let report = sample::bare();
    let page = report.html();
    let elements = elements(&page).unwrap();
    assert_figures(&figures(&elements), &json(&report));
    for wrong in ["NaN", ">inf", "\"inf", "Infinity", "None", "Some("] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    let main = &elements.iter().find(|element| element.name == "main").unwrap().text;
    for said in [
        "No accuracy was measured.",
        "not one network of random search, with as many measurements, keeps the budget",
        "it was not checked on networks that were not in its fit",
        "Not told by this machine: model, Jetson Linux, kernel, power mode",
        "multiply-accumulates, millions",
    ] {
        assert!(main.contains(said), "{said}");
    }
    assert!(!main.contains("Warnings") && !main.contains("What the score is made of"));
}

#[test]
fn a_winner_that_random_search_met_is_owned_up_to() {
    let mut report = sample::report();
    let main = |report: &SearchReport| {
        let elements = elements(&report.html()).unwrap();
        elements.into_iter().find(|element| element.name == "main").unwrap().text
    };
    assert!(main(&report).contains("Random search, with as many measurements, did not end with the winner."));
    report.random_search = Some(report.winner.clone());
    assert!(main(&report).contains("random search met the same network"));
    report.winner.found_by = FoundBy::RandomSearch;
    assert!(main(&report).contains("The search has gained nothing over chance here."));
    assert!(!main(&report).contains("does not keep the budget"));
    report.winner.within_budget = false;
    assert!(main(&report).contains("The winner does not keep the budget as measured."));
}

/// The text of the page.
fn main_of(report: &SearchReport) -> String {
    let elements = elements(&report.html()).unwrap();
    elements.into_iter().find(|element| element.name == "main").unwrap().text
}

#[test]
fn an_energy_limit_is_one_on_what_is_measured() {
    let mut report = sample::report();
    assert!(report.limits.energy_mj.is_some());
    let text = main_of(&report);
    assert!(text.contains("The energy limit is kept as measured at the board's power rails"), "{text}");
    assert!(text.contains("50.00 mJ, as measured") && !text.contains("mJ, as predicted"), "{text}");
    assert!(!text.contains("over the energy budget"), "{text}");
    // A network that would be the best, had it kept the energy budget.
    report.finalists[1].latency.median_ms = 1.0;
    report.finalists[1].score = 1e6;
    (report.finalists[1].within_budget, report.finalists[1].energy_mj) = (false, Some(99.0));
    let over = report.html();
    assert!(
        main_of(&report).contains("of these, over the energy budget (1)")
            && over.contains("over the energy budget: finalist")
    );
    // One whose energy was not measured is not known to be over anything.
    let mut unknown = report.clone();
    unknown.finalists[1].energy_mj = None;
    let page = unknown.html();
    assert!(main_of(&unknown).contains("of these, energy not measured (1)"), "{}", main_of(&unknown));
    assert!(page.contains("energy not measured: finalist") && page.contains("<td>energy not measured</td>"));
    assert!(!page.contains("over the energy budget"), "{page}");
    report.finalists.remove(1);
    let chart = |page: &str| page.split("<figure>").nth(1).unwrap().to_owned();
    let steps =
        |page: &str| chart(page).split("<polyline").nth(2).unwrap().split("/>").next().unwrap().matches(' ').count();
    assert_eq!(steps(&over), steps(&report.html()), "nothing goes through what is no choice");
}

#[test]
fn a_list_and_predictions_that_are_far_off_are_told() {
    let mut report = sample::report();
    assert!(!main_of(&report).contains("far off"));
    (report.method, report.margins.latency) = (Method::List, 0.3);
    let text = main_of(&report);
    assert!(text.contains("The first step looked at every network of the given list, and at no other."), "{text}");
    assert!(text.contains("latency is predicted too high: finalists took 0.300 times as much"), "{text}");
}

#[test]
fn a_count_has_no_decimals_and_a_block_that_computes_a_colour() {
    let mut report = sample::report();
    report.winner.score = 33_280.0;
    let page = report.html();
    assert!(page.contains("value=\"33280.0\">33280</data>") && !page.contains("33280.0000"), "{page}");
    // An identity that is chosen and computes, as where it changes the size.
    let chosen = report.blocks.iter().position(|block| block.layer.is_some()).unwrap();
    (report.blocks[chosen].operator, report.blocks[chosen].macs) = ("identity".to_owned(), 1_000_000);
    let page = report.html();
    let row = page.split("id=\"winner\"").nth(1).unwrap();
    let block = row.split("<g>").nth(1 + chosen).unwrap();
    assert!(block.contains(": identity, to ") && !block.contains("fill=\"#8b949e\""), "{block}");
    assert!(row.split("<g>").nth(1).unwrap().contains("fill=\"#8b949e\""), "the stem is the same in all");
}

/// The page with a script that asks the browser how it laid it out, and no rule against scripts.
fn with_questions(page: &str) -> String {
    const SCRIPT: &str = "<script>
    const shown = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0 };
    for (const d of document.querySelectorAll('details')) d.open = true;
    const hidden = [...document.querySelectorAll('[data-figure]')].filter(e => !shown(e));
    const cut = document.documentElement.scrollWidth - window.innerWidth;
    const over = [];
    for (const svg of document.querySelectorAll('figure svg')) {
      const texts = [...svg.querySelectorAll('text:not([transform])')].map(e => [e, e.getBoundingClientRect()]);
      const sheet = svg.getBoundingClientRect();
      for (const [e, b] of texts) {
        if (b.left < sheet.left - 1 || b.right > sheet.right + 1) over.push('outside: ' + e.textContent);
        for (const [f, c] of texts) {
          if (e !== f && b.left + 1 < c.right && c.left + 1 < b.right && b.top + 3 < c.bottom && c.top + 3 < b.bottom)
            over.push(e.textContent + ' over ' + f.textContent);
        }
      }
    }
    const said = JSON.stringify({ hidden: hidden.map(e => e.dataset.figure), cut, over, width: window.innerWidth });
    document.documentElement.setAttribute('data-laid-out', btoa(unescape(encodeURIComponent(said))));
    </script></body>";
    let policy = page.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let end = policy + page[policy..].find('>').unwrap() + 1;
    format!("{}{}", &page[..policy], &page[end..]).replace("</body>", SCRIPT)
}

/// Bytes of text in base64 without padding rules.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text.bytes().filter_map(|b| LETTERS.iter().position(|&l| l == b));
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for six in bits {
        held = (held << 6 | six as u32) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
        }
    }
    bytes
}

#[test]
fn a_browser_shows_the_figures_without_a_complaint() {
    let Some(chromium) = browser::chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let report = sample::report();
    let page = dir.path().join("report.html");
    fs::write(&page, report.html()).unwrap();
    for look in LOOKS {
        let (dom, logged) = browser::open(&chromium, &page, look, "--dump-dom");
        assert_eq!(logged, [""; 0], "{look:?}");
        assert!(dom.contains("mobilenet on NVIDIA Jetson Orin Nano Developer Kit</h1>"), "{dom}");
        // The browser has parsed it as it is written: the same figures and the same result.
        for (key, value, text, _) in figures(&elements(&report.html()).unwrap()) {
            let shown = format!(">{text}</data>");
            let there = |line: &str| {
                let at = line.find(&format!("data-figure=\"{key}\"")).map(|at| &line[at..]);
                at.is_some_and(|at| {
                    at.split("</data>").next().is_some_and(|it| format!("{it}</data>").ends_with(&shown))
                })
            };
            assert!(value.is_none() || there(&dom), "{key}: {text}");
        }
        let result = dom.split_once("id=\"result\">").unwrap().1.split_once("</script>").unwrap().0;
        assert_eq!(serde_json::from_str::<Value>(result).unwrap(), json(&report));
    }
}

#[test]
fn a_browser_lays_the_page_out_without_cuts_and_overlaps() {
    let Some(chromium) = browser::chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Axes to 1e300 have labels that no chart has room for.
    let mut bare = sample::bare();
    bare.winner.predicted_ms = 6.0;
    let (wide, narrow) = (LOOKS[0], LOOKS[2]);
    let paper = Look { width: PAPER, ..wide };
    let good = sample::report().html();
    for (name, html, look) in [
        ("wide", &good, wide),
        ("narrow", &good, narrow),
        ("paper", &good.replace("@media print{", "@media all{"), paper),
        ("hostile", &sample::hostile().html(), wide),
        ("hostile-narrow", &sample::hostile().html(), narrow),
        ("bare", &bare.html(), wide),
        ("bare-narrow", &bare.html(), narrow),
    ] {
        let page = dir.path().join(format!("{name}.html"));
        fs::write(&page, with_questions(html)).unwrap();
        let (dom, logged) = browser::open(&chromium, &page, look, "--dump-dom");
        assert_eq!(logged, [""; 0], "{name}");
        let said = dom.split_once("data-laid-out=\"").unwrap().1.split_once('"').unwrap().0;
        let said: Value = serde_json::from_slice(&decoded(said)).unwrap();
        assert_eq!((&said["hidden"], &said["over"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{name}");
        assert!(said["cut"].as_f64().unwrap() <= 0.0, "{name}: {said}");
    }
}

#[test]
fn a_pages_complaint_would_be_heard() {
    let Some(chromium) = browser::chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("wrong.html");
    for wrong in ["<script>nothing()</script>", "<script>console.warn('w')</script>", "<img src=\"none.png\"/>"] {
        // The policy complains of what would be loaded or run.
        let html = sample::report().html().replace("</body>", &format!("{wrong}</body>"));
        fs::write(&page, html).unwrap();
        let (_, logged) = browser::open(&chromium, &page, LOOKS[0], "--dump-dom");
        assert!(!logged.is_empty(), "{wrong}");
    }
}

#[test]
fn a_picture_of_the_page_is_light_or_dark_and_not_empty() {
    let Some(chromium) = browser::chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    fs::write(&page, sample::report().html()).unwrap();
    for look in LOOKS {
        let file = dir.path().join("picture.png");
        let (_, logged) = browser::open(&chromium, &page, look, &format!("--screenshot={}", file.display()));
        assert_eq!(logged, [""; 0], "{look:?}");
        keep(&page, &file, look);
        let picture = image::open(&file).unwrap().to_luma8();
        assert_eq!(picture.height(), look.height);
        let share = |of: &dyn Fn(u8) -> bool| {
            picture.pixels().filter(|p| of(p.0[0])).count() as f64 / f64::from(picture.width() * picture.height())
        };
        let (dark, light) = (share(&|v| v < 64), share(&|v| v > 191));
        // Paper is most of it, letters and marks some.
        let (paper, marks) = if look.dark { (dark, 1.0 - dark) } else { (light, 1.0 - light) };
        assert!(paper > 0.6 && marks > 0.02, "{look:?}: {dark} dark, {light} light");
    }
}

/// Keeps the page and a picture of it for people, where `NASBN_REPORT_PICTURES` names a directory.
fn keep(page: &Path, picture: &Path, look: Look) {
    if let Some(dir) = std::env::var_os("NASBN_REPORT_PICTURES") {
        let dir = Path::new(&dir);
        let name = format!("report-{}-{}.png", look.width, if look.dark { "dark" } else { "light" });
        fs::copy(picture, dir.join(name)).unwrap();
        fs::copy(page, dir.join("report.html")).unwrap();
    }
}
