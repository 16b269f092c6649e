"""A batch norm is as exact for numbers far from zero as for their deviations from the mean."""

from __future__ import annotations

import jax
import numpy as np

from ihas_jax.selectors.normalize import fresh_norm, normalize


def test_a_mean_far_above_the_deviation_leaves_the_norm_exact():
    noise = np.asarray(jax.random.normal(jax.random.key(0), (64, 4)))
    x = (np.float32(1) + np.float32(0.01) * noise).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    found, stats = normalize(x, fresh_norm(4, affine=False)[1], train=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * exact.var(0), rtol=1e-6)
