"""LaTeX as MathML, and with what is new in it marked."""

from __future__ import annotations

import pytest

from ddpm_lib.figures.formulas import mathml

from .hands import Tags


@pytest.mark.parametrize(
    "tex",
    [
        r"\mathbb{E}_q\left[\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}\right]",
        r"D_{\mathrm{KL}}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big) \ge 0",
        r"\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0, \qquad \varepsilon \sim \mathcal N(0, I)",
        r"\underbrace{\sum_{t>1} L_{t-1}}_{\text{denoising}} + \int \hat\varepsilon \, \mathrm{d}x \propto \left\|x\right\|^2",
        r"\tfrac12 \lVert x \rVert_2^2 \le \operatorname{Var}[x]",
        r"f(x) = \left\{ x^2 \right. \quad \max_x f \ge \log x",
    ],
)
def test_the_latex_of_the_book_becomes_mathml(tex):
    formula = mathml(tex)
    Tags(formula)
    assert formula.startswith("<math") and "\\" not in formula
