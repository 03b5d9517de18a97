// Enlarges film strips and plays videos in a dialog. Without it strips stay small and links open the video's file.
(function () {
  var dialog = document.getElementById('viewer');
  if (!dialog || !dialog.showModal) return;
  var title = dialog.querySelector('h2'), stage = dialog.querySelector('.stage'), player = dialog.querySelector('video');
  function enlarged(image) {
    var figure = document.createElement('figure'), copy = document.createElement('img');
    var caption = document.createElement('figcaption'), inside = image.dataset.inside;
    copy.src = image.src;
    copy.alt = '';
    if (image.naturalHeight < 100) copy.className = 'small';
    caption.textContent = image.dataset.time + (inside ? ' · ' + inside : '');
    if (inside) figure.className = 'inside';
    figure.append(copy, caption);
    return figure;
  }
  function open(card, address) {
    var found = card.querySelectorAll('.strip img');
    title.textContent = card.querySelector('.text').textContent;
    stage.replaceChildren.apply(stage, Array.from(found, enlarged));
    if (player) player.hidden = !address;
    dialog.showModal();
    if (player && address) {
      player.src = address;
      player.play().catch(function () {});
    }
  }
  document.querySelectorAll('.strip').forEach(function (strip) {
    strip.setAttribute('role', 'button');
    strip.setAttribute('aria-label', 'Enlarge the frames of the video');
    strip.tabIndex = 0;
    function show() { open(strip.closest('article'), ''); }
    strip.addEventListener('click', show);
    strip.addEventListener('keydown', function (event) {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      show();
    });
  });
  document.querySelectorAll('.plays a').forEach(function (link) {
    link.addEventListener('click', function (event) {
      if (!player || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(link.closest('article'), link.href);
    });
  });
  dialog.addEventListener('click', function (event) {
    if (event.target === dialog || event.target.closest('button')) dialog.close();
  });
  dialog.addEventListener('close', function () {
    if (!player) return;
    player.pause();
    player.removeAttribute('src');
    player.load();
  });
})();
