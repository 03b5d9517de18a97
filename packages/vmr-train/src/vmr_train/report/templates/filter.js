// Hides the queries that do not match. The page is complete without it: the controls appear only where it runs.
(function () {
  var box = document.getElementById('filter');
  if (!box) return;
  var text = box.querySelector('input'), group = box.querySelector('select'), output = box.querySelector('output');
  var sections = Array.from(document.querySelectorAll('[data-group]'));
  function apply() {
    var wanted = text.value.toLowerCase(), shown = 0;
    sections.forEach(function (section) {
      var here = 0;
      section.querySelectorAll('article').forEach(function (card) {
        var fits = (!group.value || group.value === section.dataset.group) &&
          card.dataset.find.indexOf(wanted) >= 0;
        card.hidden = !fits;
        if (fits) here += 1;
      });
      section.hidden = here === 0;
      shown += here;
    });
    output.textContent = shown + (shown === 1 ? ' query' : ' queries');
  }
  text.addEventListener('input', apply);
  group.addEventListener('change', apply);
  box.hidden = false;
  apply();
})();
