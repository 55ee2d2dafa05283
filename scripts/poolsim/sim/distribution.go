package sim

import (
	"math"
	"math/rand/v2"
)

// Distribution draws positive numbers with a mean of 1.
type Distribution func(*rand.Rand) float64

// Exponential has a coefficient of variation of 1; requests that come so are a
// Poisson process.
func Exponential(r *rand.Rand) float64 { return r.ExpFloat64() }

// Constant is always 1.
func Constant(*rand.Rand) float64 { return 1 }

// Uniform is from 0 to 2.
func Uniform(r *rand.Rand) float64 { return 2 * r.Float64() }

// Pareto has many small values and few huge ones: shape 2.2, coefficient of
// variation 1.5.
func Pareto(r *rand.Rand) float64 {
	const shape = 2.2
	return (shape - 1) / shape * math.Pow(1-r.Float64(), -1/shape)
}

// Distributions are the distributions by name.
var Distributions = map[string]Distribution{
	"exponential": Exponential, "constant": Constant, "uniform": Uniform, "pareto": Pareto,
}
