package graph

// walk is the set of nodes reached from some of them by links.
type walk struct {
	g    *Graph
	seen []uint64
	todo []uint32
	n    int
}

func newWalk(g *Graph) *walk { return &walk{g: g, seen: make([]uint64, (g.rows.Len()+63)/64)} }

func (w *walk) reached(id uint32) bool {
	row := int(id) - w.g.first()
	return w.seen[row/64]>>(row%64)&1 == 1
}

func (w *walk) add(id uint32) {
	if w.reached(id) {
		return
	}
	row := int(id) - w.g.first()
	w.seen[row/64] |= 1 << (row % 64)
	w.n++
	w.todo = append(w.todo, id)
}

// from adds node id and all that it reaches.
func (w *walk) from(id uint32) {
	w.add(id)
	for len(w.todo) > 0 {
		last := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		for _, l := range w.g.Links(last) {
			w.add(l)
		}
	}
}

// Reachable returns how many nodes are reached from the entries by links: all
// of them, after Build and Insert.
func (g *Graph) Reachable() int {
	w := newWalk(g)
	for _, id := range g.entries {
		w.from(id)
	}
	return w.n
}
