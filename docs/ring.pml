/*
 * The core of the token ring (docs/ring.md): token, view change, recovery.
 * scripts/model.sh checks it with spin, and that it finds planted mistakes.
 *
 * Bounds, all of them -D switches; scripts/model.sh sets several combinations:
 *
 *   members     3; they start in one view, or with -DAPART in views {0,1} and {2}
 *   VIEWS       views called in all, those of the start included
 *   MSGS        entries ordered in all, ENDs included
 *   HOPS        passes of the token in a view
 *   CRASHES     crashes, of any member at any moment; crashed members stay so
 *
 * scripts/model.sh -l has searched one view, 3 calls, 2 entries, 5 hops, 1 crash as well:
 * 50 million states, 8.4 GiB.
 *
 * Losses have no bound: a token, a call or a promise may arrive late or never. A
 * member's newest token of its view and of the view before are on their way until
 * they are of no use to anybody: two tokens for each sender, which may overtake each
 * other and the calls. One call of each member is on its way.
 *
 * What is left out, and why that loses nothing:
 *
 * - Time. Whoever is up may call any view with itself in it at any moment, for any
 *   reason, so PING, PONG, WANT, time-outs, proofs, hold-off and leaving need not be
 *   there: they decide only when and whom to call. Progress is not in scope: without
 *   time it can't be. The simulator checks it.
 * - Numbers of views are given in the order of the calls. A caller that picks a lower
 *   one has called before, as far as anybody can tell.
 * - An entry is a bit; bits are given in the order in which entries are added. Sequence
 *   numbers of one view are then the order of its bits, and sets of entries are masks.
 *   An entry's origin is the mask om[] that has its bit.
 * - Accepting, delivering, adding (nothing or one entry) and passing on are one step. A
 *   member that keeps the token is one whose hop is not accepted yet.
 * - Rings of three go round 0, 1, 2 from the coordinator on, whoever that is.
 * - The exchange is what it is for: END brings each member what the others knew at their
 *   install. It can be ordered when the first token has been at all of them.
 *
 * Not modelled at all: restarted members, locks, the proposers' queues, primary mode.
 */
#ifndef VIEWS
#define VIEWS 3
#endif
#ifndef MSGS
#define MSGS 3
#endif
#ifndef HOPS
#define HOPS 6
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#ifndef SCRATCH
#define SCRATCH hidden /* no part of a state; empty for a search in breadth, which can't have that */
#endif

#define N 3
#define BIT(i) (1 << (i))
#define SIZE(l) (((l) & 1) + (((l) >> 1) & 1) + (((l) >> 2) & 1))
#define COUNT(view) SIZE(list[view])
/* place in the ring of view v */
#define PLACE(view, m) (COUNT(view) == 3 -> ((m) + 3 - coord[view]) % 3 : ((m) != coord[view]))
#define FOR(view, m) ((list[view] & BIT(m)) && COUNT(view) > 1)

/* Views: members, coordinator, is there an exchange, entries first ordered there,
 * and what its END brings. */
byte views;
byte list[VIEWS + 1], coord[VIEWS + 1];
bool exchange[VIEWS + 1];
byte om[VIEWS + 1], brings[VIEWS + 1];

/* Entries: how many there are, which are ENDs. */
byte entries, ends;

/* Members. hop[] and token[] are the token that the member made last in its installed
 * view: its copy. The old ones are of the view before. */
bool up[N];
byte inst[N], prom[N], synced[N];
byte hop[N], token[N];
byte oldview[N], oldhop[N], oldtoken[N];
byte delivered[N]; /* in the installed view */
byte known[N];     /* delivered ever, or brought by an exchange */
bool endstable[N]; /* END is stable, or there is none */
byte crashes;

/* Calls, by caller: the view, who promised, their installed views and what they have
 * delivered of these, the entries of their copies, and whether one of them has its
 * installed view synced. */
byte call[N], got[N], from[9], have[9], copies[N];
bool one[N];

/* What a promised member will have delivered of its view once it accepts the first
 * token that was made: for checks only. */
byte expect[N];

#ifdef BUG_OWN
byte accepted[N];
#define COPY(m) accepted[m]
#else
#define COPY(m) token[m]
#endif

SCRATCH byte view, turn, carried, fresh, sure, who, added, head, gap, same, size;
SCRATCH byte after[N];

/* The other two. */
#define S1 ((m + 1) % 3)
#define S2 ((m + 2) % 3)

/* Claims that number n can't happen, to show that it can. */
#ifndef REACH
#define REACH 0
#endif
#define REACHED(n, what) assert(REACH != n || !(what))

#define AT_ALL(set) \
	assert(!(list[view] & 1) || !((set) & ~known[0])); \
	assert(!(list[view] & 2) || !((set) & ~known[1])); \
	assert(!(list[view] & 4) || !((set) & ~known[2]))

/* A member accepts a token of its installed view, with a higher hop; or the first one of
 * the view that it promised. */
#if defined(BUG_ACCEPT)
#define NEXT(m, view, turn) (inst[m] == (view) && (turn) > hop[m])
#elif defined(BUG_HOP)
#define NEXT(m, view, turn) (inst[m] == (view) && prom[m] == (view) && (turn) + 1 >= hop[m])
#else
#define NEXT(m, view, turn) (inst[m] == (view) && prom[m] == (view) && (turn) > hop[m])
#endif
#define FIRST(m, view) (prom[m] == (view) && inst[m] != (view))
#define MAY(m, view, turn) ((view) && (turn) && up[m] && FOR(view, m) && (turn) % COUNT(view) == PLACE(view, m) && \
	(NEXT(m, view, turn) || FIRST(m, view)))

/* deliver takes what is new to m of its installed view. All members deliver the
 * same sequence, so nobody has a gap in it. */
inline deliver(m, set) {
	fresh = (set) & ~delivered[m];
#ifndef BUG_FOREIGN
	fresh = fresh & om[inst[m]];
#endif
	delivered[m] = delivered[m] | fresh;
	known[m] = known[m] | fresh;
	if
	:: fresh & ends & om[inst[m]] ->
		known[m] = known[m] | brings[inst[m]];
		synced[m] = inst[m];
		assert((known[m] & ~om[inst[m]]) == brings[inst[m]])
	:: else
	fi;
	assert(!(delivered[m] & ~om[inst[m]]));
	fresh = om[inst[m]] & ~delivered[m];
	assert(!fresh || delivered[m] < (fresh & -fresh))
}

/* enter leaves the old view for v. */
inline enter(m) {
	REACHED(1, exchange[view] && (head & om[inst[m]] & ~delivered[m]));
	deliver(m, head);
	assert(delivered[m] == expect[m]);
	expect[m] = 0;
	if
	:: hop[m] -> oldview[m] = inst[m]; oldhop[m] = hop[m]; oldtoken[m] = token[m]
	:: else
	fi;
	inst[m] = view;
	delivered[m] = 0;
	hop[m] = 0;
	token[m] = 0;
	endstable[m] = !exchange[view];
	if
	:: !exchange[view] -> synced[m] = view
	:: else
	fi
}

/* add orders one more entry, an END or not. */
inline add(what) {
	if
	:: what ->
		added = BIT(entries);
		entries++;
		om[view] = om[view] | added;
		carried = carried | added;
		if
		:: what == 2 -> ends = ends | added
		:: else
		fi
	:: else
	fi
}

/* pass makes hop h of view v. There is one token in a view: nobody has made this hop. */
inline pass(m) {
	deliver(m, carried);
	assert(!(inst[S1] == view && hop[S1] >= turn) && !(oldview[S1] == view && oldhop[S1] >= turn));
	assert(!(inst[S2] == view && hop[S2] >= turn) && !(oldview[S2] == view && oldhop[S2] >= turn));
	hop[m] = turn;
	token[m] = carried;
	printf("%d passes hop %d of view %d with %d on; delivered %d, known %d\n", m, turn, view, carried, delivered[m], known[m])
}

/* accept takes hop h of view v with entries e, adds and passes on. */
inline accept(m, vv, hh, ee, what) {
	view = vv; turn = hh; carried = ee;
	printf("%d accepts hop %d of view %d with %d\n", m, turn, view, carried);
	/* The old token reaches one that a new view has left out. */
	REACHED(6, inst[m] == view && view < views && inst[S1] == views && !(list[views] & BIT(m)));
	if
	:: inst[m] == view ->
		/* What it made has gone round: all have it. */
		if
		:: token[m] & ends & om[view] -> endstable[m] = 1
		:: else
		fi;
		REACHED(2, exchange[view] && endstable[m]);
		if
#ifdef BUG_EARLY
		:: hop[m] ->
#else
		:: hop[m] && endstable[m] ->
#endif
			sure = (known[m] & ~om[view]) | (delivered[m] & ~(carried & ~token[m]));
			REACHED(3, view > 1 && !exchange[view] && (sure & om[1]));
			AT_ALL(sure)
		:: else
		fi;
		carried = carried & ~token[m]
	:: else ->
		head = carried;
		enter(m);
#ifdef BUG_HEAD
		carried = carried & om[view];
#endif
	fi;
#ifdef BUG_OWN
	accepted[m] = carried;
#endif
	add(what);
	turn++;
	pass(m);
	tidy()
}

/* promise gives the call of k what m has. */
inline promise(x, y) {
	got[y] = got[y] | BIT(x);
	printf("%d promises view %d, gives %d of view %d\n", x, call[y], COPY(x), inst[x]);
	from[y * 3 + x] = inst[x];
	have[y * 3 + x] = delivered[x];
	copies[y] = copies[y] | COPY(x);
	one[y] = one[y] || synced[x] == inst[x]
}

inline forget(k) {
	got[k] = 0; copies[k] = 0; one[k] = 0;
	from[k * 3] = 0; from[k * 3 + 1] = 0; from[k * 3 + 2] = 0;
	have[k * 3] = 0; have[k * 3 + 1] = 0; have[k * 3 + 2] = 0
}

inline callview(m, l) {
	views++;
	printf("%d calls view %d of %d\n", m, views, l);
	list[views] = l;
	coord[views] = m;
	prom[m] = views;
	expect[m] = 0;
	forget(m);
	call[m] = views;
	promise(m, m);
	tidy()
}

/* Can it ever enter this view? */
#define ENTERS(m) (up[m] && (list[view] & BIT(m)) && prom[m] == view)

/* What all have delivered that promised to m and come from view v. */
#define HAS(m, v, x) (from[m * 3 + x] == (v) -> have[m * 3 + x] : 255)
#define ALL_HAVE(m, v) (HAS(m, v, 0) & HAS(m, v, 1) & HAS(m, v, 2))

/* headof adds to the head, of the entries of view v, what one of those who come from it
 * lacks, up to the first that no copy has: views in between have let go of what their
 * own members did not lack. */
inline headof(m, v) {
	fresh = om[v] & ~ALL_HAVE(m, v);
	gap = fresh & ~copies[m];
	if
	:: gap ->
		gap = (gap & -gap) - 1;
		REACHED(7, fresh & ~gap & copies[m]);
#ifndef BUG_GAP
		fresh = fresh & gap
#endif
	:: else
	fi;
	head = head | (fresh & copies[m])
}

/* install makes the first token of the view that m called. */
inline install(m, what) {
	view = call[m];
#ifndef BUG_MISSING
	call[m] = 0;
#endif
	size = COUNT(view);
	head = 0;
	headof(m, from[m * 3]);
	headof(m, from[m * 3 + 1]);
	headof(m, from[m * 3 + 2]);
	same = 1;
	for (who : 0 .. 2) {
		if
		:: (list[view] & BIT(who)) && from[m * 3 + who] != from[m * 3 + m] -> same = 0
		:: else
		fi
	}
	/* The view of somebody was torn: its coordinator is gone, another had promised it only. */
	REACHED(4, !same && inst[m] > 1 && !up[coord[inst[m]]] && size == 2);
#ifdef BUG_SKIP
	exchange[view] = size > 1 && !same;
#else
	exchange[view] = size > 1 && !(same && (one[m] || (head & ends & om[inst[m]])));
#endif
	REACHED(5, same && exchange[view]);
#ifdef BUG_OLD
	/* A newer hop among the copies is taken for the token's return. */
	for (who : 0 .. 2) {
		if
		:: (list[view] & BIT(who)) && inst[who] == inst[m] && hop[who] > hop[m] && hop[m] && endstable[m] ->
			sure = view; view = inst[m]; AT_ALL(token[m]); view = sure
		:: else
		fi
	}
#endif
	/* What each will have delivered of its view, and know. */
	for (who : 0 .. 2) {
		if
		:: ENTERS(who) ->
			expect[who] = delivered[who] | (head & om[inst[who]]);
			after[who] = known[who] | expect[who];
			if
			:: expect[who] & ends -> after[who] = after[who] | brings[inst[who]]
			:: else
			fi;
			if
			:: exchange[view] -> brings[view] = brings[view] | after[who]
			:: else
			fi
		:: else
		fi
	}
	/* Virtual synchrony; and without exchange all know the same. */
	for (who : 0 .. 2) {
		if
		:: ENTERS(who) ->
			assert(inst[who] != inst[m] || expect[who] == expect[m]);
			assert(exchange[view] || after[who] == after[m]);
			added = (who + 1) % 3;
			assert(!ENTERS(added) || inst[who] != inst[added] || expect[who] == expect[added])
		:: else
		fi
	}
	forget(m);
	printf("%d installs view %d, exchange %d, head %d\n", m, view, exchange[view], head);
	enter(m);
	if
	:: size == 1 -> carried = 0
	:: else -> carried = head
	fi;
#ifdef BUG_OWN
	accepted[m] = carried;
#endif
	add(what);
	if
	:: size == 1 -> deliver(m, carried)
	:: else -> turn = 1; pass(m)
	fi;
	tidy()
}

/* Can anybody still accept it? */
#define MAYBE(view, turn) (MAY(0, view, turn) || MAY(1, view, turn) || MAY(2, view, turn))
/* Can anybody still promise to it, or its caller install it? */
#define OPEN(m, k) (up[m] && (list[call[k]] & BIT(m)) && prom[m] < call[k])
#define WANTED(k) (OPEN(0, k) || OPEN(1, k) || OPEN(2, k) || (up[k] && prom[k] == call[k] && got[k] == list[call[k]]))

/* tidy forgets what can't matter any more, so that states meet. */
inline tidy() {
	for (who : 0 .. 2) {
#ifndef BUG_ACCEPT
		if
		:: oldview[who] && !MAYBE(oldview[who], oldhop[who]) -> oldview[who] = 0; oldhop[who] = 0; oldtoken[who] = 0
		:: else
		fi;
		if
		:: !up[who] ->
			delivered[who] = 0; endstable[who] = 0; synced[who] = 0; expect[who] = 0;
			if
			:: !hop[who] || !MAYBE(inst[who], hop[who]) -> token[who] = 0
			:: else
			fi
		:: else
		fi;
#endif
		if
		:: call[who] && !WANTED(who) -> call[who] = 0; forget(who)
		:: else
		fi
	};
	who = 0 /* a step must not end with a loop */
}
#if defined(BUG_LOWER)
/* A second promise to a lower number. */
#define PROMISE(m, k) (up[m] && call[k] && (list[call[k]] & BIT(m)) && !(got[k] & BIT(m)) && prom[m] != call[k] && inst[m] < call[k])
#else
#define PROMISE(m, k) (call[k] && OPEN(m, k))
#endif

#if defined(BUG_MISSING)
/* One promise short of all. */
#define READY(m) (call[m] && up[m] && prom[m] == call[m] && inst[m] != call[m] && SIZE(got[m]) + 1 >= COUNT(call[m]))
#elif defined(BUG_LOWER)
#define READY(m) (call[m] && up[m] && got[m] == list[call[m]])
#else
#define READY(m) (call[m] && up[m] && prom[m] == call[m] && got[m] == list[call[m]])
#endif

#define NEW (entries < MSGS)
#define END(m, view, turn) (NEW && inst[m] == (view) && coord[view] == (m) && exchange[view] && (turn) >= COUNT(view) && !(om[view] & ends))

/* The tokens of s as they reach m. */
#define TOKENS(s) \
	:: d_step { MAY(m, inst[s], hop[s]) && hop[s] < HOPS -> accept(m, inst[s], hop[s], token[s], 0) } \
	:: d_step { MAY(m, inst[s], hop[s]) && hop[s] < HOPS && NEW -> accept(m, inst[s], hop[s], token[s], 1) } \
	:: d_step { MAY(m, inst[s], hop[s]) && hop[s] < HOPS && END(m, inst[s], hop[s]) -> accept(m, inst[s], hop[s], token[s], 2) } \
	:: d_step { MAY(m, oldview[s], oldhop[s]) && oldhop[s] < HOPS -> accept(m, oldview[s], oldhop[s], oldtoken[s], 0) } \
	:: d_step { MAY(m, oldview[s], oldhop[s]) && oldhop[s] < HOPS && NEW -> accept(m, oldview[s], oldhop[s], oldtoken[s], 1) } \
	:: d_step { MAY(m, oldview[s], oldhop[s]) && oldhop[s] < HOPS && END(m, oldview[s], oldhop[s]) -> accept(m, oldview[s], oldhop[s], oldtoken[s], 2) }

/* The call of k reaches m; the answer reaches k or not. */
#define CALLS(k) \
	:: d_step { PROMISE(m, k) && up[k] -> prom[m] = call[k]; expect[m] = 0; promise(m, k); tidy() } \
	:: d_step { PROMISE(m, k) -> prom[m] = call[k]; expect[m] = 0; printf("%d promises view %d, unheard\n", m, prom[m]); tidy() }

proctype member(byte m) {
	do
	TOKENS(S1)
	TOKENS(S2)
	CALLS(S1)
	CALLS(S2)
	:: d_step { up[m] && views < VIEWS -> callview(m, BIT(m)) }
	:: d_step { up[m] && views < VIEWS -> callview(m, BIT(m) | BIT(S1)) }
	:: d_step { up[m] && views < VIEWS -> callview(m, BIT(m) | BIT(S2)) }
	:: d_step { up[m] && views < VIEWS -> callview(m, 7) }
	:: d_step { READY(m) -> install(m, 0) }
	:: d_step { READY(m) && NEW -> install(m, 1) }
	:: d_step { up[m] && COUNT(inst[m]) == 1 && prom[m] == inst[m] && NEW ->
		view = inst[m]; carried = 0; add(1); deliver(m, carried) }
	:: d_step { up[m] && crashes < CRASHES -> crashes++; up[m] = 0; printf("%d crashes\n", m); forget(m); tidy() }
	od
}

init {
	d_step {
		up[0] = 1; up[1] = 1; up[2] = 1;
		list[1] = 7;
		for (who : 0 .. 2) {
			inst[who] = 1; prom[who] = 1; synced[who] = 1; endstable[who] = 1
		};
		views = 1;
#ifdef APART
		list[1] = 3;
		list[2] = 4; coord[2] = 2;
		inst[2] = 2; prom[2] = 2; synced[2] = 2;
		views = 2;
#endif
		hop[0] = 1
	};
	atomic { run member(0); run member(1); run member(2) }
}
