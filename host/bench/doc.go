// Package bench measures what a machine gives and what is made of it: the
// kernels against the memory's read bandwidth and the core's arithmetic, and a
// model's decode steps and prefill, with what each step is spent on.
//
// Every figure is the median of repeats with its quartiles. What is to be
// compared (kernels, attention modes, ceilings) takes turns in short slices
// within one process, because the speed of a shared machine drifts; shares of
// a ceiling carry over to another machine, absolute times do not.
//
// [Model] measures the product's own decode loop: it wraps the engine's
// backend, model and search in ones that note times. Only keys and values are
// made up, in place of a prefill that would take hours.
package bench
