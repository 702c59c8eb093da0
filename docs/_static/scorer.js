// Order of what a search finds: pages first, the reference of the library's rooms after
// them. The weights are Sphinx's own.
var Scorer = {
  score: ([docname, , , , score]) => score - (docname.startsWith("reference/") ? 40 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
