package selection

// array is a slice in pieces: what it holds stays in place when it grows, so that no
// Put takes long.
type array[T any] struct {
	pieces [][]T
	n      int
}

// pieceLen is a multiple of fanOut, so that nodes of the lottery's tree are in one
// piece. The first piece grows like a slice: most pools are small.
const (
	pieceBits = 12
	pieceLen  = 1 << pieceBits
)

func (l *array[T]) at(i int) *T { return &l.pieces[i>>pieceBits][i&(pieceLen-1)] }

// few returns what is at i and behind, up to the next multiple of n, a divisor of
// pieceLen.
func (l *array[T]) few(i, n int) []T {
	piece, at := l.pieces[i>>pieceBits], i&(pieceLen-1)
	return piece[at:min(at+n-at%n, len(piece))]
}

func (l *array[T]) push(v T) {
	last := l.n >> pieceBits
	if last == len(l.pieces) {
		var piece []T
		if last > 0 {
			piece = make([]T, 0, pieceLen)
		}
		l.pieces = append(l.pieces, piece)
	}
	l.pieces[last] = append(l.pieces[last], v)
	l.n++
}

// pop takes the last one out.
func (l *array[T]) pop() {
	l.n--
	last := l.n >> pieceBits
	piece := l.pieces[last]
	clear(piece[len(piece)-1:])
	if l.pieces[last] = piece[:len(piece)-1]; len(piece) == 1 {
		l.pieces[last] = nil
		l.pieces = l.pieces[:last]
	}
}
