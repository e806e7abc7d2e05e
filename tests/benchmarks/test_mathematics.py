"""Answers in LaTeX that are the same, and that are not."""

import threading

import pytest

from morphing.benchmarks.judging import mathematics
from morphing.benchmarks.judging.metrics import get_metric
from morphing.errors import MorphingError

SAME = [
    ("1000000000", "1000000000"),
    ("2147483648", "2^{31}"),
    ("13!", "6227020800"),
    ("1,000", "1000"),
    (r"\$1,000", "1000"),
    ("1{,}000", "1000"),
    (r"1\,000", "1000"),
    ("10^{20}", "100000000000000000000"),
    ("007", "7"),
    ("+7", "7"),
    ("7.", "7"),
    ("7.0", "7"),
    ("-0", "0"),
    ("0.5", r"\frac12"),
    (".5", "0.50"),
    ("0.0000001", "10^{-7}"),
    ("2.5e3", "2500"),
    (r"2.5\times 10^3", "2500"),
    (r"2.5\cdot10^{3}", "2500"),
    (r"\dfrac{1}{2}", r"\tfrac{1}{2}"),
    (r"\frac{2}{4}", r"\frac12"),
    ("1/2", r"\frac{1}{2}"),
    (r"\frac{-1}{2}", r"-\frac12"),
    (r"-\frac{1}{2}", "-0.5"),
    (r"\frac{14}{3}", "14/3"),
    (r"\frac34", "0.75"),
    (r"\frac 34", "0.75"),
    (r"3\frac{1}{2}", "3.5"),
    (r"3\frac{1}{2}", r"\frac72"),
    (r"-3\frac{1}{2}", "-3.5"),
    ("3 1/2", "7/2"),
    (r"2\frac{x}{3}", r"\frac{2x}{3}"),
    (r"\cfrac{1}{2}", "0.5"),
    (r"50\%", "0.5"),
    ("50%", "50"),
    (r"50\%", r"\frac12"),
    (r"12.5\%", "0.125"),
    ("50 percent", r"50\%"),
    (r"3\sqrt{2}", r"\sqrt{18}"),
    (r"\sqrt[3]{8}", "2"),
    (r"\sqrt2", r"\sqrt{2}"),
    (r"\sqrt{x^2}", "|x|"),
    ("2^{-1}", ".5"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}"),
    (r"4\sqrt{13}", r"4 \sqrt{13}"),
    ("2^{10}", "1024"),
    ("x^{-1}", r"\frac1x"),
    ("8^{1/3}", "2"),
    ("2^{3^2}", "512"),
    ("e", "e"),
    ("e", "2.718281828"),
    ("e^{2}", "e^2"),
    (r"e^{\ln 3}", "3"),
    (r"2\pi", r"\pi\cdot 2"),
    ("3!", "6"),
    (r"\binom{5}{2}", "10"),
    (r"\dbinom52", "10"),
    ("|-3|", "3"),
    (r"\left|-3\right|", "3"),
    (r"\lvert x\rvert", "|x|"),
    (r"\log_{2} 8", "3"),
    (r"\log_{10} 1000", "3"),
    (r"\ln e", "1"),
    (r"\sin x", r"\sin(x)"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\cos\frac{\pi}{3}", "0.5"),
    (r"\sin 30^\circ", "0.5"),
    (r"\lfloor 3.7\rfloor", "3"),
    (r"\lceil 3.2\rceil", "4"),
    (r"\infty", r"\infty"),
    (r"\gcd(12,18)", "6"),
    ("x+1", "1 + x"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\pi r^2", r"r^2\pi"),
    ("ab", "ba"),
    ("2xy", "2yx"),
    ("6r^2-4r-24", "6 r^2 - 4 r - 24"),
    ("(x-1)(x+2)", "x^2+x-2"),
    (r"\frac{x+1}{x-1}", r"\frac{1+x}{x-1}"),
    (r"\alpha+\beta", r"\beta+\alpha"),
    (r"3x\cdot 2", "6x"),
    ("x*2", "2x"),
    ("x=5", "5"),
    ("x = 5", "x=5"),
    ("5", "x=5"),
    ("y = 2x + 3", "y=2x+3"),
    ("y=2x+3", "2x+3"),
    ("2x+3=y", "y=2x+3"),
    ("f(x)=x^2", "x^2"),
    (r"x\in[0,1]", "[0,1]"),
    (r"x \le 3", r"3 \ge x"),
    (r"\left(1,\, 2\right)", "(1,2)"),
    ("(1, 2, 3)", "(1,2,3)"),
    ("[0,1)", "[0, 1)"),
    (r"(-\infty, 3)", r"(-\infty,3)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 2) \cup (3, \infty)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"\{2,1\}", r"\{1,2\}"),
    ("2, 1", "1,2"),
    ("1,2,3", "3,2,1"),
    (r"\{1,2,3\}", "1,2,3"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("(0.5, 2)", r"\left(\frac12,2\right)"),
    ("x=1, x=2", "1,2"),
    (r"x=1 \text{ or } x=2", "1,2"),
    (r"1 \text{ and } 2", "1, 2"),
    (r"\emptyset", r"\emptyset"),
    (r"\{1\}", "1"),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"),
    (r"\pm 2", "2,-2"),
    (r"10\text{ cm}", "10"),
    (r"10\text{ cm}", "10"),
    (r"10\ \mathrm{cm}", "10"),
    (r"10\text{ cm}^2", "10"),
    ("10 cm", "10"),
    (r"90^\circ", "90"),
    ("90°", "90"),
    (r"90^{\circ}", r"90\text{ degrees}"),
    ("45 degrees", "45"),
    (r"\$18.90", "18.90"),
    ("5 dollars", "5"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"\text{East}", "east"),
    ("(C)", r"\text{(C)}"),
    (r"\text{(C)}", "C"),
    (r"\textbf{(B)}", "B"),
    (r"\text{Evelyn}", "Evelyn"),
    ("Yes", "yes"),
    (r"\text{no solution}", "no solution"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}", r"\begin{pmatrix}\frac12\\2\end{pmatrix}"),
    (r"\boxed{5}", "5"),
    (r"\boxed{\boxed{5}}", "5"),
    ("$5$", "5"),
    ("$$5$$", "5"),
    (r"\(5\)", "5"),
    (r"\[5\]", "5"),
    ("5 .", "5"),
    (r"\displaystyle 5", "5"),
    (r"\frac{1}{2}.", "0.5"),
    (r"5\!", "5"),
    ("{5}", "5"),
    ("(5)", "5"),
    ("3+4i", "4i+3"),
    ("i^2", "-1"),
    ("101_2", "101_2"),
    ("2516_8", "2516_8"),
    ("৭০,০০০", "70000"),
    ("１２", "12"),
    (r"\frac{৩}{৪}", "0.75"),
    (r"\frac{1}{i}", "-i"),
    ("i^2", "-1"),
    (r"12.5\%", "12.5"),
    ("x^{2}", "x²"),
    (r"0.\overline{3}", r"0.\overline{3}"),
    ("10 square cm", "10"),
    (r"\boxed{\text{East}}", "east"),
    (r"\dfrac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
]
DIFFERENT = [
    ("1000000001", "1000000000"),
    ("2147483647", "2^{31}"),
    ("6227020800", "6227020799"),
    ("13!", "6227020799"),
    ("10^{20}+1", "10^{20}"),
    ("10^{20}", "100000000000000000001"),
    ("-7", "7"),
    ("0.333", r"\frac13"),
    ("0.3334", r"\frac{1}{3}"),
    ("1.0000001", "1"),
    ("0.0000001", "0.0000002"),
    ("10^{-7}", "0.0000002"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    (r"3\frac12", r"\frac32"),
    (r"50\%", "5"),
    (r"\sqrt{x^2}", "x"),
    (r"\sqrt{51}", r"\sqrt{52}"),
    ("e", "2.7"),
    (r"\pi", "3.14"),
    ("3!", "5"),
    (r"\binom{5}{2}", "11"),
    ("|x|", "x"),
    (r"\log_2 8", "4"),
    (r"-\infty", r"\infty"),
    ("x^2+2x+1", "(x-1)^2"),
    ("x", "y"),
    ("a", "b"),
    ("x_1", "x_2"),
    ("x+y", "x-y"),
    ("x=5", "6"),
    ("x=5", "y=5"),
    ("x^2+y^2=1", "x^2+y^2=2"),
    ("x<3", r"x\leq 3"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("[0,1)", "[0,1]"),
    ("(0,1)", "[0,1]"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cup(4,\infty)"),
    (r"\{1,2\}", r"\{1,3\}"),
    ("1,1", "1,2"),
    (r"10\text{ cm}", "11"),
    ("seat", "east"),
    ("C", "D"),
    (r"\text{even}", "odd"),
    ("yes", "no"),
    (r"\text{Tuesday}", "Thursday"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    ("3+4i", "3-4i"),
    ("1011_2", "1011_3"),
    ("", ""),
    ("", "5"),
    ("5", ""),
    (r"\frac{1}{", "1"),
    ("}{", "1"),
    (r"\boxed{", "1"),
    ("1/0", "1"),
    ("__import__('os')", "1"),
    (r"\input{/etc/passwd}", "1"),
    (r"50\%", r"0.5\%"),
    (r"\text{East}", "West"),
    ("[1,2]", "(1,2)"),
    (r"\sin x", r"\cos x"),
    (r"\{1,2\}", "(1,2,3)"),
    (r"\frac{3}{4}", r"\frac{4}{3}"),
]


def test_the_same_answers_are_the_same() -> None:
    math = get_metric("math")
    assert [pair for pair in SAME if math(*pair) != 1.0] == []


def test_different_answers_are_different() -> None:
    math = get_metric("math")
    assert [pair for pair in DIFFERENT if math(*pair) != 0.0] == []


@pytest.mark.parametrize(
    "answer",
    [
        "9^9^9^9",
        "9^{9^{9^{9}}}",
        "(10^9)!",
        "(" * 900,
        "{" * 5000,
        "9" * 100_000,
        "x" * 100_000,
        r"\frac" * 20_000,
        r"\sqrt{" * 3000 + "1" + "}" * 3000,
        "1+" * 50_000 + "1",
        "__import__('os').abort()",
        r"\input{/etc/passwd}",
    ],
    ids=range(12),
)
def test_what_a_model_makes_up_ends_and_is_wrong(answer: str) -> None:
    assert get_metric("math")(answer, "1") == 0.0
    assert get_metric("math")(r"\frac{2}{2}", "1") == 1.0, "the next one is judged as ever"


def test_answers_are_judged_in_threads_too() -> None:
    mathematics._same.cache_clear()
    found: list[float] = []

    def judge(number: int) -> None:
        found.append(mathematics.same_answer(rf"\frac{{{2 * number}}}{{2}}x", f"{number}x"))

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 6


def test_a_killed_process_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mathematics._same.cache_clear()
    assert mathematics.same_answer("x+3", "3+x") == 1.0
    process = mathematics._VERIFIER._process
    assert process is not None
    process.kill()
    process.wait()
    assert mathematics.same_answer("x+4", "4+x") == 1.0


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics.sys, "executable", "/bin/false")
    with pytest.raises(MorphingError, match="math-verify cannot be started"):
        mathematics._Verifier().equal([("1", "x")])
