//! Charts are XML, hold what they were given, and keep within the sheet.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

/// A tag: its name and attributes.
type Tag = (String, Vec<(String, String)>);

/// Tags of a document, in order. Panics where it is not well-formed, as far as charts go: no comments, no CDATA.
fn tags(document: &str) -> Vec<Tag> {
    let (mut open, mut found, mut rest) = (Vec::new(), Vec::new(), document.trim());
    loop {
        let (text, markup) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        assert!(!text.contains('>') && entities_are_known(text), "text {text:?}");
        if markup.is_empty() {
            break;
        }
        let end = markup.find('>').unwrap();
        let tag = &markup[1..end];
        rest = &markup[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            assert!(!open.is_empty() || rest.is_empty(), "text after the document");
            continue;
        }
        let (name, mut left) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let mut attributes: Vec<(String, String)> = Vec::new();
        while !left.trim().is_empty() {
            let (key, after) = left.trim().split_once("=\"").unwrap();
            let (value, after) = after.split_once('"').unwrap();
            assert!(!value.contains('<') && entities_are_known(value), "attribute {value:?}");
            assert!(attributes.iter().all(|(other, _)| other != key), "{key} twice");
            attributes.push((key.into(), value.into()));
            left = after;
        }
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
        found.push((name.to_owned(), attributes));
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    found
}

fn entities_are_known(text: &str) -> bool {
    text.split('&').skip(1).all(|after| ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| after.starts_with(e)))
}

/// All numbers of the attribute in tags of the name.
fn numbers(tags: &[Tag], name: &str, attribute: &str) -> Vec<f64> {
    let of =
        |(_, attributes): &Tag| attributes.iter().find(|(key, _)| key == attribute).map(|(_, v)| v.parse().unwrap());
    tags.iter().filter(|(tag, _)| tag == name).filter_map(of).collect()
}

fn labels() -> Labels {
    Labels {
        title: "a < b & \"c\" > d\u{1}".into(),
        subtitle: "s".repeat(400),
        x: "score".into(),
        y: "mean_acc, %".into(),
        legend: "layers".into(),
    }
}

#[test]
fn the_check_finds_what_is_not_xml() {
    for wrong in ["<a><b></a></b>", "<a>&x</a>", "<a b=\"<\"/>", "<a>", "<a b=\"1\" b=\"2\"/>"] {
        assert!(std::panic::catch_unwind(|| tags(wrong)).is_err(), "{wrong}");
    }
    assert_eq!(tags("<a b=\"1\"><c/>&amp;</a>").len(), 2);
}

#[test]
fn a_scatter_plot_has_a_circle_a_point_within_the_sheet() {
    let points = |n: usize| (0..n).map(|i| (i as f64, (i * i % 17) as f64)).collect();
    let mut series: Vec<Series> =
        (1..=4).map(|n| Series { name: format!("{n}"), points: points(10 * n), dashed: false }).collect();
    series[0].points.push((f64::NAN, 1.0));
    series[0].points.push((1.0, f64::INFINITY));
    let picture = scatter(&labels(), &series);
    let tags = tags(&picture);
    let (x, y) = (numbers(&tags, "circle", "cx"), numbers(&tags, "circle", "cy"));
    assert_eq!((x.len(), y.len()), (100, 100));
    assert!(x.iter().all(|x| (60.0..720.0).contains(x)) && y.iter().all(|y| (60.0..430.0).contains(y)));
    // Greater values are further right and higher up.
    assert!(x[0] < x[9] && y[0] > y[1]);
    assert!(picture.contains("a &lt; b &amp; &quot;c&quot; &gt; d\u{fffd}") && picture.contains("ss…"));
    assert!(picture.contains("prefers-color-scheme:dark") && !picture.contains("href"));
    for text in [">layers<", ">score<", ">mean_acc, %<", ">30<", ">4<"] {
        assert!(picture.contains(text), "{text}");
    }
}

#[test]
fn a_line_is_parted_where_a_value_is_missing() {
    let points = vec![(1.0, 2.0), (2.0, 3.0), (3.0, f64::NAN), (4.0, 1.0), (5.0, 2.0), (6.0, 4.0)];
    let picture = lines(&labels(), &[Series { name: "drift".into(), points, dashed: false }]);
    let tags = tags(&picture);
    assert_eq!(tags.iter().filter(|(name, _)| name == "polyline").count(), 2);
    assert_eq!(numbers(&tags, "circle", "cx").len(), 5);
}

#[test]
fn a_dashed_line_goes_with_the_one_before_it() {
    let series = |name: &str, dashed| Series { name: name.into(), points: vec![(0.0, 0.0), (1.0, 1.0)], dashed };
    let all = [series("a", false), series("a foretold", true), series("b", false), series("b foretold", true)];
    let picture = lines(&labels(), &all);
    let tags = tags(&picture);
    let of = |key: &str| -> Vec<String> {
        let lines = tags.iter().filter(|(name, _)| name == "polyline");
        lines.map(|(_, attributes)| attributes.iter().find(|(k, _)| k == key).unwrap().1.clone()).collect()
    };
    assert_eq!(of("class"), ["line", "line dashed", "line", "line dashed"]);
    let colours = of("stroke");
    assert!(colours[0] == colours[1] && colours[2] == colours[3] && colours[0] != colours[2], "{colours:?}");
    assert!(picture.contains(">b<") && !picture.contains("foretold"));
}

#[test]
fn whiskers_reach_to_both_sides_of_a_grouped_bars_end() {
    let categories: Vec<String> = ["a", "b", "c"].map(Into::into).into();
    let series = [Bars { name: String::new(), values: vec![0.4, 0.2, 0.1], spread: vec![0.2, 0.0, f64::NAN] }];
    let whiskers = |arrangement| {
        let tags = tags(&bars(&labels(), &categories, &series, arrangement));
        let whisker = |(name, attributes): &&Tag| {
            name == "line" && attributes.iter().any(|(key, value)| key == "class" && value == "whisker")
        };
        let found: Vec<Tag> = tags.iter().filter(whisker).cloned().collect();
        let heights = numbers(&tags, "rect", "height")[1..].to_vec();
        let tops = numbers(&tags, "rect", "y");
        (numbers(&found, "line", "y1"), numbers(&found, "line", "y2"), heights, tops)
    };
    let (low, high, heights, tops) = whiskers(Arrangement::Grouped);
    // A line and its two ends; the spread is half of the bar's height. Pixels are written with one decimal.
    assert_eq!((low.len(), high.len()), (3, 3));
    let half = heights[0] / 2.0;
    assert!((low[0] - (tops[0] + half)).abs() < 0.2 && (high[0] - (tops[0] - half)).abs() < 0.2, "{low:?} {high:?}");
    assert!(whiskers(Arrangement::Stacked).0.is_empty());
}

#[test]
fn bars_are_as_high_as_their_values() {
    let categories: Vec<String> = ["identity", "mb3_k3", "mb6_k5"].map(Into::into).into();
    let series = [
        Bars { name: "convolution".into(), values: vec![0.2, 0.3, 0.5], ..Default::default() },
        Bars { name: "every-operator".into(), values: vec![0.4, f64::NAN, 0.6], ..Default::default() },
    ];
    let heights = |arrangement| -> Vec<f64> {
        let tags = tags(&bars(&labels(), &categories, &series, arrangement));
        // The paper and two swatches come first.
        numbers(&tags, "rect", "height")[3..].to_vec()
    };
    for arrangement in [Arrangement::Grouped, Arrangement::Stacked] {
        let heights = heights(arrangement);
        let unit = heights[0] / 0.2;
        let wanted = [0.2, 0.3, 0.5, 0.4, 0.6];
        assert_eq!(heights.len(), wanted.len());
        // Pixels are written with one decimal.
        assert!(heights.iter().zip(wanted).all(|(h, w)| (h - w * unit).abs() < 1.0), "{heights:?}");
    }
    // Stacked bars are 1.1 high at most, grouped ones 0.6.
    assert!(heights(Arrangement::Grouped)[0] > 1.5 * heights(Arrangement::Stacked)[0]);
    // A stacked bar ends where the next begins: the paper has no y, two swatches come first.
    let tags = tags(&bars(&labels(), &categories, &series, Arrangement::Stacked));
    let (y, height) = (&numbers(&tags, "rect", "y")[2..], &numbers(&tags, "rect", "height")[3..]);
    assert!((y[3] + height[3] - y[0]).abs() < 0.2 && (y[4] + height[4] - y[2]).abs() < 0.2, "{y:?} {height:?}");
}

#[test]
fn charts_of_nothing_and_of_the_extreme_are_charts() {
    let extreme = vec![(f64::MAX, f64::MIN), (f64::MIN, f64::MAX), (0.0, 0.0)];
    for points in [vec![], vec![(1.0, 1.0)], extreme, vec![(f64::NAN, f64::NAN)]] {
        for picture in [
            scatter(&labels(), &[Series { name: String::new(), points: points.clone(), dashed: false }]),
            lines(&labels(), &[Series { name: "n".into(), points: points.clone(), dashed: false }]),
        ] {
            tags(&picture);
            assert!(!picture.contains("NaN") && !picture.contains("inf\""), "{picture}");
        }
    }
    let many: Vec<String> = (0..300).map(|i| format!("category number {i}")).collect();
    let bars_of = |i: u32| Bars { name: format!("{i}"), values: vec![-1.0, 1e308, -1e308], spread: vec![1e308; 2] };
    let series: Vec<Bars> = (0..60).map(bars_of).collect();
    for arrangement in [Arrangement::Grouped, Arrangement::Stacked] {
        let picture = bars(&labels(), &many, &series, arrangement);
        tags(&picture);
        assert!(picture.contains("more<") && !picture.contains("NaN"), "{arrangement:?}");
        tags(&bars(&labels(), &[], &[], arrangement));
    }
}

fn spots(points: &[(f64, f64)]) -> Vec<Spot> {
    points.iter().map(|&(x, y)| Spot { x, y, says: "a < b & \"c\"".into() }).collect()
}

fn of(tags: &[Tag], name: &str, key: &str) -> Vec<String> {
    let all = tags.iter().filter(|(tag, _)| tag == name);
    all.filter_map(|(_, attributes)| Some(attributes.iter().find(|(k, _)| k == key)?.1.clone())).collect()
}

#[test]
fn marks_differ_in_shape_and_say_what_they_are() {
    let series = |mark, tone, points: &[(f64, f64)]| Marked { mark, tone, spots: spots(points), word: String::new() };
    let gone = (f64::NAN, 1.0);
    let mut star = series(Mark::Star, Tone::Ink, &[(3.0, 4.0)]);
    star.word = "<winner>".into();
    let all = [
        series(Mark::Disc, Tone::Blue, &[(1.0, 1.0), (2.0, 2.0), gone]),
        series(Mark::Dust, Tone::Faint, &[(1.5, 1.0)]),
        series(Mark::Diamond, Tone::Orange, &[(1.0, 3.0), (2.0, 3.0)]),
        series(Mark::Steps, Tone::Faint, &[(1.0, 1.0), (2.0, 2.0), (3.0, 4.0)]),
        series(Mark::Dashes, Tone::Faint, &[(1.0, 1.0), gone, (2.0, 2.0), (3.0, 4.0)]),
        star,
    ];
    let picture = marked(&labels(), &all, Some(&Upright { x: 5.0, label: "budget <5> ms".into() }));
    let tags = tags(&picture);
    assert_eq!(numbers(&tags, "circle", "cx").len(), 3);
    let corners = |list: Vec<String>| list.iter().map(|points| points.split(' ').count()).collect::<Vec<_>>();
    assert_eq!(corners(of(&tags, "polygon", "points")), [4, 4, 10]);
    assert_eq!(corners(of(&tags, "polyline", "points")), [5, 2]);
    assert_eq!(of(&tags, "polyline", "class"), ["line", "line dashed"]);
    // A step keeps its height up to the next point's place.
    let steps: Vec<(f64, f64)> = of(&tags, "polyline", "points")[0]
        .split(' ')
        .map(|corner| corner.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap())
        .collect();
    assert!(steps[0].1 == steps[1].1 && steps[1].0 == steps[2].0 && steps[2].1 < steps[1].1, "{steps:?}");
    // The upright line is right of all points, though none is there, and as high as the chart.
    let upright: Vec<Tag> =
        tags.iter().filter(|(_, a)| a.contains(&("class".into(), "upright".into()))).cloned().collect();
    let (x1, x2) = (numbers(&upright, "line", "x1"), numbers(&upright, "line", "x2"));
    assert!(x1.len() == 1 && x1 == x2 && x1[0] > steps[4].0 + 50.0, "{x1:?}");
    assert_eq!(picture.matches("<title>a &lt; b &amp; &quot;c&quot;</title>").count(), 6);
    assert!(picture.contains(">&lt;winner&gt;<") && picture.contains(">budget &lt;5&gt; ms<"));
}

#[test]
fn marked_charts_of_nothing_and_of_the_extreme_are_charts() {
    for points in [vec![], vec![(f64::NAN, 0.0)], vec![(f64::MAX, f64::MIN), (f64::MIN, f64::MAX)]] {
        for x in [f64::NAN, f64::INFINITY, 0.0, 1e308] {
            let series = Marked { mark: Mark::Disc, tone: Tone::Blue, spots: spots(&points), word: "w".into() };
            let picture = marked(&labels(), &[series], Some(&Upright { x, label: "l".repeat(200) }));
            tags(&picture);
            assert!(!picture.contains("NaN") && !picture.contains("inf\""), "{picture}");
            assert_eq!(picture.contains("class=\"upright\""), x.is_finite());
        }
    }
}

#[test]
fn a_chart_of_a_page_leaves_its_styles_to_the_page() {
    let picture = marked(&labels(), &[], None);
    assert!(picture.contains(STYLE) && !inlined(&picture).contains("style"));
    assert_eq!(inlined(&picture).len() + STYLE.len() + "<style></style>\n".len(), picture.len());
    for mark in [Mark::Disc, Mark::Dust, Mark::Diamond, Mark::Star, Mark::Line, Mark::Dashes, Mark::Steps] {
        let drawn = tags(&key(mark, Tone::Orange));
        assert_eq!(drawn.len(), 2, "{mark:?}");
    }
}

#[test]
fn blocks_are_as_high_as_their_values_and_thin_without() {
    let block = |value| Block {
        name: "mb3k3 & more".into(),
        value,
        shown: "<1>".into(),
        colour: "#3b82c4".into(),
        says: "says".into(),
    };
    let picture = row("title", "description", &[4.0, f64::NAN, 1.0, 0.0, 2.0].map(block));
    let tags = tags(&picture);
    // The paper comes first.
    let (heights, widths) = (numbers(&tags, "rect", "height"), numbers(&tags, "rect", "width"));
    let (heights, widths) = (&heights[1..], &widths[1..]);
    // Pixels are written with one decimal.
    assert!((heights[0] - 4.0 * heights[2]).abs() < 0.3 && (heights[0] - 2.0 * heights[4]).abs() < 0.3, "{heights:?}");
    assert!(widths[1] == widths[3] && widths[1] < widths[0] / 3.0 && widths[0] == widths[2], "{widths:?}");
    assert!(picture.contains(">mb3k3 &amp; more<") && picture.contains(">&lt;1&gt;<"));
    self::tags(&row("t", "d", &[]));
    self::tags(&row("t", "d", &[f64::INFINITY, 1e308, -1.0].map(block)));
}
