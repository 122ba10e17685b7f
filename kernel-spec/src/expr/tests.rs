//! Expressions against Python's answers, and every refusal by its line.

use super::*;
use proptest::prelude::*;

fn names() -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("rows".into(), Value::Int(3)),
        ("cols".into(), Value::Int(77)),
        ("scale".into(), Value::Float(0.125)),
        ("act".into(), Value::from("relu")),
    ])
}

fn value(text: &str) -> Result<Value, String> {
    text.parse::<Expr>().and_then(|e| e.evaluate(&names())).map_err(|e| e.to_string())
}

/// What CPython 3.12 prints for the same text and names (functions aside, which it does not have).
#[test]
fn values_are_those_of_python() {
    let table = [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("7 // -2", "-4"),
        ("-7 % 3", "2"),
        ("7 % -3", "-2"),
        ("-7.5 // 2", "-4.0"),
        ("-7.5 % 2", "0.5"),
        ("7.5 % -2", "-0.5"),
        ("6 / 3", "2.0"),
        ("1 / 8", "0.125"),
        ("2 ** 10", "1024"),
        ("-2 ** 2", "-4"),
        ("(-2) ** 3", "-8"),
        ("2 ** -1", "0.5"),
        ("2 ** 3 ** 2", "512"),
        ("2 ** -1 ** 2", "0.5"),
        ("(-1) ** 4294967297", "-1"),
        ("10 - 2 - 3", "5"),
        ("100 / 10 / 5", "2.0"),
        ("1_000 * 2", "2000"),
        ("1e3", "1000.0"),
        (".5 + 5.", "5.5"),
        ("1 < 2 < 3", "True"),
        ("1 < 3 < 2", "False"),
        ("1 == 1.0", "True"),
        ("9007199254740993 == 9007199254740992.0", "False"),
        ("9007199254740993 > 9007199254740992.0", "True"),
        ("2 if rows > 2 else 5", "2"),
        ("1 if 0 else 2 if 0 else 3", "3"),
        ("0 or 5", "5"),
        ("3 and 5", "5"),
        ("0 and 1 // 0", "0"),
        ("not rows == 3 or cols == 77", "True"),
        ("not not 2", "True"),
        ("not 1 < 2", "False"),
        ("True + True", "2"),
        ("-True", "-1"),
        ("'a' + \"b\"", "'ab'"),
        ("act == 'relu' and 'b' > 'a'", "True"),
        ("act == 1", "False"),
        ("'' or 'x'", "'x'"),
        ("rows * cols + 1", "232"),
        ("1 / sqrt(64)", "0.125"),
        ("ceil_div(cols, 32)", "3"),
        ("ceil_div(-7, 2)", "-3"),
        ("next_pow2(cols)", "128"),
        ("next_pow2(64)", "64"),
        ("next_pow2(0)", "1"),
        ("min(3, 2.5, 7)", "2.5"),
        ("max(rows, cols, 1)", "77"),
        ("exp2(3)", "8.0"),
        ("log2(1024)", "10.0"),
        ("-9223372036854775807 - 1", "-9223372036854775808"),
        ("(-9223372036854775807 - 1) % -1", "0"),
    ];
    for (text, expected) in table {
        assert_eq!(value(text).map(|v| v.to_string()), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_has_no_value_is_refused_in_one_line_with_its_place() {
    let table = [
        ("", "`` at 1: expected a number or a name, found the end"),
        ("rows +", "`rows +` at 7: expected a number or a name, found the end"),
        ("row * 2", "`row * 2` at 1: unknown name `row`: did you mean `rows`?"),
        ("2 * q", "`2 * q` at 5: unknown name `q`: known are `act`, `cols`, `rows`, `scale`"),
        ("1 // (rows - 3)", "`1 // (rows - 3)` at 3: division by zero"),
        ("1 / 0", "`1 / 0` at 3: division by zero"),
        ("1.0 % 0.0", "`1.0 % 0.0` at 5: division by zero"),
        ("0 ** -1", "`0 ** -1` at 3: division by zero"),
        ("ceil_div(1, 0)", "`ceil_div(1, 0)` at 1: division by zero"),
        ("9223372036854775807 + 1", "`9223372036854775807 + 1` at 21: overflow: beyond 64-bit integers"),
        ("9223372036854775808", "`9223372036854775808` at 1: `9223372036854775808` is beyond 64-bit integers"),
        ("2 ** 64", "`2 ** 64` at 3: overflow: beyond 64-bit integers"),
        ("next_pow2(2 ** 62 + 1)", "`next_pow2(2 ** 62 + 1)` at 1: overflow: beyond 64-bit integers"),
        ("1e308 * 10", "`1e308 * 10` at 7: overflow: not a finite number"),
        ("1e999", "`1e999` at 1: `1e999` is not a number"),
        ("(-8) ** 0.5", "`(-8) ** 0.5` at 6: a broken power of a negative number has no real value"),
        ("sqrt(-1)", "`sqrt(-1)` at 1: -1.0 has no square root"),
        ("log2(0)", "`log2(0)` at 1: 0.0 has no logarithm"),
        ("act * 2", "`act * 2` at 5: * needs numbers, and 'relu' is a text"),
        ("act < 2", "`act < 2` at 5: < cannot order a text and an integer"),
        ("ceil_div(1.5, 2)", "`ceil_div(1.5, 2)` at 1: ceil_div needs integers, and 1.5 is a float"),
        ("ceil_div(1)", "`ceil_div(1)` at 1: ceil_div takes 2 arguments, 1 are given"),
        (
            "cdiv(1, 2)",
            "`cdiv(1, 2)` at 1: unknown function `cdiv`: known are `ceil_div`, `min`, `max`, `next_pow2`, `sqrt`, \
             `exp2`, `log2`",
        ),
        ("sqr(2)", "`sqr(2)` at 1: unknown function `sqr`: did you mean `sqrt`?"),
        ("min + 1", "`min + 1` at 1: `min` is a function: write `min(...)`"),
        ("rows = 3", "`rows = 3` at 6: unexpected '=': compare with =="),
        ("a && b", "`a && b` at 3: unexpected '&': write `and`, `or`"),
        ("rows rows", "`rows rows` at 6: unexpected `rows` after the end"),
        ("(rows", "`(rows` at 6: expected `)`, found the end"),
        ("1 if rows", "`1 if rows` at 10: expected `else`, found the end"),
        ("2rows", "`2rows` at 1: a number runs into a word: write a decimal number, and * for products"),
        ("'open", "`'open` at 1: the text has no closing quote"),
        ("and", "`and` at 1: expected a number or a name, found `and`"),
        (
            "größe",
            "`größe` at 3: unexpected 'ö': an expression has numbers, names, + - * / // % **, comparisons, \
             and or not, if else",
        ),
        ("'ö' + 1", "`'ö' + 1` at 5: + needs numbers, and 'ö' is a text"),
    ];
    for (text, line) in table {
        assert_eq!(value(text), Err(line.to_owned()));
    }
}

#[test]
fn values_of_the_wrong_kind_say_what_to_write() {
    let refused = |text: &str| text.parse::<Expr>().unwrap().integer(&names()).unwrap_err().to_string();
    assert_eq!(refused("cols / 7"), "`cols / 7` at 1: is 11.0, and an integer is needed: use // or ceil_div");
    assert_eq!(refused("act"), "`act` at 1: is the text 'relu', and an integer is needed");
    let expr: Expr = "rows > 2".parse().unwrap();
    assert_eq!((expr.integer(&names()), expr.float(&names()), expr.truth(&names())), (Ok(1), Ok(1.0), Ok(true)));
    assert!("act".parse::<Expr>().unwrap().float(&names()).is_err());
}

#[test]
fn depth_and_length_are_limited_and_long_sums_are_not_deep() {
    let deep = format!("{}1{}", "(".repeat(5000 / 2), ")".repeat(1500));
    assert!(value(&deep).unwrap_err().contains("nested more than 48 deep"));
    for deep in [
        "-".repeat(4000) + "1",
        "not ".repeat(1000) + "1",
        "2 ** ".repeat(800) + "1",
        "1 if 0 else ".repeat(300) + "1",
        "min(".repeat(1000),
    ] {
        assert!(value(&deep).unwrap_err().contains("nested more than"), "{deep}");
    }
    assert_eq!(value(&format!("0{}", "+1".repeat(2000))), Ok(Value::Int(2000)));
    assert!(value(&"1+".repeat(3000)).unwrap_err().contains("longer than 4096 bytes"));
    assert!(!value("1 +\n +\n q").unwrap_err().contains('\n'));
    let nested = format!("{}1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    assert_eq!(value(&nested), Ok(Value::Int(1)));
}

#[test]
fn serde_keeps_numbers_as_numbers_and_text_as_text() {
    for json in ["3", "2.5", "true", "\"rows * 2\"", "\"''\""] {
        let expr: Expr = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&expr).unwrap(), json);
    }
    let refused = |json: &str| serde_json::from_str::<Expr>(json).unwrap_err().to_string();
    assert!(refused("[1]").contains("a number or an expression in quotes"), "{}", refused("[1]"));
    assert!(refused("\"1 +\"").contains("found the end"));
    assert!(refused("18446744073709551615").contains("beyond 64-bit integers"));
    for value in [Value::Int(-3), Value::Float(2.0), Value::Bool(true), Value::from("a b")] {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
        assert_eq!(Expr::constant(value.clone()).evaluate(&names()), Ok(value.clone()));
        assert_eq!(Expr::constant(value.clone()).to_string().parse::<Expr>().unwrap().evaluate(&names()), Ok(value));
    }
}

#[test]
fn names_are_found_and_checked() {
    let expr: Expr = "a if b > min(c, -d) else e ** f + not_g".parse().unwrap();
    assert_eq!(expr.names().into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f", "not_g"]);
    assert_eq!("rows".parse::<Expr>().unwrap().as_name(), Some("rows"));
    assert_eq!("rows + 0".parse::<Expr>().unwrap().as_name(), None);
    for good in ["x", "_x1", "BLOCK_M"] {
        assert_eq!(check_name(good), Ok(()));
    }
    for (bad, why) in
        [("", "not a name"), ("1x", "not a name"), ("a-b", "not a name"), ("min", "function"), ("in", "Python")]
    {
        assert!(check_name(bad).unwrap_err().contains(why), "{bad}");
    }
}

const PIECES: &[&str] = &[
    "rows",
    "cols",
    "scale",
    "act",
    "0",
    "1",
    "-1",
    "63",
    "9223372036854775807",
    "0.5",
    "1e300",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "(",
    ")",
    ",",
    "<",
    "==",
    "and",
    "or",
    "not",
    "if",
    "else",
    "min(",
    "max(",
    "ceil_div(",
    "next_pow2(",
    "sqrt(",
    "exp2(",
    "log2(",
    "'a'",
];

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = value(&text);
    }

    #[test]
    fn no_likely_text_panics(parts in proptest::collection::vec(proptest::sample::select(PIECES), 0..14)) {
        let line = value(&parts.join(" "));
        prop_assert!(line.err().is_none_or(|l| !l.contains('\n')));
    }

    #[test]
    fn integer_division_is_pythons(a in any::<i64>(), b in any::<i64>()) {
        prop_assume!(b != 0 && (a != i64::MIN || b != -1));
        let names = BTreeMap::from([("a".to_owned(), Value::Int(a)), ("b".to_owned(), Value::Int(b))]);
        let of = |text: &str| text.parse::<Expr>().unwrap().integer(&names).unwrap();
        let (quotient, remainder) = (of("a // b"), of("a % b"));
        prop_assert_eq!(i128::from(quotient) * i128::from(b) + i128::from(remainder), i128::from(a));
        prop_assert!(remainder == 0 || (remainder < 0) == (b < 0));
        prop_assert!(i128::from(remainder).abs() < i128::from(b).abs());
    }
}
